//! Who is told that an endpoint's addresses have moved, and when.

use super::Engine;
use crate::driver;
use crate::kernel::Announcement;
use crate::model::{EndpointSpec, NetworkSpec};

impl Engine {
    /// Tells the network where the endpoint's addresses will be. Before the container's end of the
    /// link is up: it would hear its own IPv6 address announced by another, and the kernel logs a
    /// warning each time. Nobody else has the address, so nothing is lost by saying it early, nor by
    /// an attach that fails afterwards.
    pub(super) fn announce(&mut self, network: &NetworkSpec, endpoint: &EndpointSpec) {
        let Some(bridge) = driver::announced_on(network) else { return };
        self.kernel.announce(&Announcement {
            bridge: bridge.clone(),
            mac: endpoint.mac,
            addresses: endpoint.addresses().collect(),
        });
    }
}
