//! What dockerd does to other links of ours when one leaves a sandbox, and how that is made good.
//!
//! dockerd knows a link by its name on the host, and those we place have none. After a restart under
//! live-restore it takes all of one sandbox for the one that leaves and takes them down, which costs
//! them their routes (20.10 to 28: releaseOSSboxResources in libnetwork). It does so between Leave
//! and DeleteEndpoint.
//!
//! An agent that ends between these two calls has forgotten how the links were: what it starts with
//! puts up links and addresses again, default routes that dockerd had made stay away.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Engine;
use super::execute::roll_forward;
use crate::kernel::Scope;
use crate::model::{Attach, EndpointId, EndpointSpec, Origin};
use crate::object::{Netns, Object, ObjectKey, Wanted};
use crate::plan::{Observed, Owner, reconcile};

impl Engine {
    /// Remembers how the other links that we placed in its sandbox are, before an endpoint leaves.
    pub(super) fn remember_siblings(&mut self, endpoint: EndpointId) {
        let Some(stored) = self.intent.endpoint(endpoint) else { return };
        let (Attach::Netns { path, .. }, Origin::Docker) =
            (&stored.spec.attach, stored.spec.origin)
        else {
            return;
        };
        let siblings = self.intent.endpoints_in(path).filter(|known| known.spec.id != endpoint);
        let keys: Vec<ObjectKey> = siblings.flat_map(|known| keys_of(&known.spec)).collect();
        if keys.is_empty() {
            return;
        }
        match self.kernel.observe(&Scope::Keys(keys)) {
            Ok(seen) => {
                self.siblings.insert(endpoint, up_and_ours(seen));
            }
            Err(error) => tracing::warn!(%error, "the sandbox could not be looked at"),
        }
    }

    /// Makes them again what they were, now that the endpoint is out.
    pub(super) fn restore_siblings(&mut self, endpoint: EndpointId) {
        let Some(wanted) = self.siblings.remove(&endpoint) else { return };
        let keys = wanted.iter().map(|wanted| wanted.object.key()).collect();
        let seen = match self.kernel.observe(&Scope::Keys(keys)) {
            Ok(seen) => seen,
            Err(error) => return tracing::warn!(%error, "the sandbox could not be looked at"),
        };
        let plan = reconcile(&seen, &wanted);
        if plan.is_empty() {
            return;
        }
        for left in roll_forward(&mut *self.kernel, &plan) {
            self.note("sandbox", left.error.to_string());
        }
    }
}

/// What taking an interface down can cost: addresses of IPv6, and default routes.
fn keys_of(endpoint: &EndpointSpec) -> Vec<ObjectKey> {
    let Attach::Netns { path, interface, .. } = &endpoint.attach else { return Vec::new() };
    let netns = || Netns::Path(path.clone());
    let nets = [endpoint.v4.map(IpNet::V4), endpoint.v6.map(IpNet::V6)].into_iter().flatten();
    let defaults = [Ipv4Net::default().into(), Ipv6Net::default().into()];
    let mut keys = vec![ObjectKey::link(netns(), interface)];
    keys.extend(defaults.map(|net| ObjectKey::route(netns(), interface, net)));
    keys.extend(nets.map(|net| ObjectKey::address(netns(), interface, net)));
    keys
}

fn up_and_ours(seen: Observed) -> Vec<Wanted> {
    let ours = seen.into_values().filter(|seen| seen.owner == Owner::Netagent);
    let up = ours.filter(|seen| !matches!(&seen.object, Object::Link(link) if !link.serving));
    up.map(|seen| Wanted::new(seen.object, "dockerd took it down with another")).collect()
}
