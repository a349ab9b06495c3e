//! What a user asks for, in types that cannot hold nonsense.
//!
//! Pure values: no kernel, no clock, no serialisation (each front door and the store has its own
//! records). Everything else in the tree builds on these words; read `spec` first.

mod error;
mod facts;
mod ids;
mod intent;
mod names;
mod spec;
mod units;

pub use error::{Error, ErrorClass, Result, nearest};
pub use facts::{Facts, ForeignBridge, Needs, Uplink};
pub use ids::{EndpointId, IdError, NetworkId};
pub use intent::{EndpointPhase, Intent, NetworkPhase, SavedSysctl, StoredEndpoint, StoredNetwork};
pub use names::{LinkName, NetworkName};
pub use spec::{
    Announce, Attach, BridgeOwner, BridgeSpec, DriverSpec, EndpointSpec, GatewayAddress,
    GatewayMode, HostAddress, Icc, Ipam, Masquerade, Naming, NetworkSpec, Origin, PortRange,
    PortRequest, Protocol, Published, Reach, SandboxId, Subnet,
};
pub use units::{Family, MacAddr, Mark, Mtu, unfit_for_host};
