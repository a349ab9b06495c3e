//! Joining a sandbox and leaving it, and who places the link: dockerd or netagent.
//!
//! By default dockerd takes the link. It knows nothing of one that we place, so its own numbering
//! would run into it: that is done only under names that dockerd never gives.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::execute::{execute, roll_forward};
use super::{Engine, Joined};
use crate::driver;
use crate::model::{
    Attach, DriverSpec, EndpointId, EndpointPhase, EndpointSpec, Error, ErrorClass, LinkName,
    NetworkId, NetworkSpec, Origin, PortRequest, Reach, Result, SandboxId, StoredEndpoint,
};
use crate::object::Wanted;
use crate::plan::delta;

/// What dockerd's own interface names begin with.
const DOCKERS_PREFIX: &str = "eth";

/// How many numbers are tried behind a prefix: more than a sandbox has interfaces.
const NUMBERS: usize = 100;

impl Engine {
    /// Takes an endpoint into a sandbox that wants these ports published: hands its link to
    /// dockerd, or places it. The same again is answered as before.
    pub fn join(
        &mut self,
        network: NetworkId,
        endpoint: EndpointId,
        sandbox: &Path,
        ports: &[PortRequest],
    ) -> Result<Joined> {
        let (network, stored) = self.living_endpoint(network, endpoint)?;
        let task = format!("join endpoint \"{}\" to its sandbox", stored.spec.label());
        self.try_join(&network, stored, sandbox, ports).map_err(|error| error.within(task))
    }

    fn try_join(
        &mut self,
        network: &NetworkSpec,
        stored: StoredEndpoint,
        sandbox: &Path,
        ports: &[PortRequest],
    ) -> Result<Joined> {
        let mut stored = self.settle(network, stored, sandbox)?;
        let prefix = self.prefixes.get(&stored.spec.id).map(String::as_str);
        let joined = joined(network, &stored.spec, prefix);
        stored.phase = EndpointPhase::Joined;
        let spec = stored.spec.clone();
        match network.reach {
            Reach::External => self.open_asked(network, stored, ports)?,
            Reach::Internal => self.record(stored)?,
        }
        if joined.source.is_some() && !self.docker_announces {
            self.announce(network, &spec);
        }
        Ok(joined)
    }

    /// The endpoint with its link made, where it was left open who places it.
    fn settle(
        &mut self,
        network: &NetworkSpec,
        stored: StoredEndpoint,
        sandbox: &Path,
    ) -> Result<StoredEndpoint> {
        let asked = match &stored.spec.attach {
            Attach::HandOff => return Ok(stored),
            Attach::Netns { interface, .. } if stored.phase == EndpointPhase::Leaving => {
                Some(interface.clone())
            }
            Attach::Netns { path, id, .. } => {
                if path == sandbox && !self.is_lost(path, *id)? {
                    return Ok(stored);
                }
                let doing = format!("sandbox \"{}\"", sandbox.display());
                return Err(Error::conflict(doing, format!("it is in \"{}\"", path.display())));
            }
            Attach::AtJoin { interface } => interface.clone(),
        };
        match self.kernel.sandbox(sandbox) {
            Ok(id) if self.may_place(sandbox, asked.as_ref()) => {
                self.place(network, stored, asked, (sandbox, id))
            }
            Ok(_) => self.hand_over(network, stored, asked, sandbox),
            // Before 28 dockerd makes a container's namespace after this.
            Err(error) if error.errno == Errno::ENOENT as i32 => {
                self.hand_over(network, stored, asked, sandbox)
            }
            Err(error) => {
                let doing = format!("netns {}", sandbox.display());
                Err(Error::unavailable(doing, error.to_string()).with_errno(error.errno))
            }
        }
    }

    /// Whether dockerd survives that one more link of this sandbox leaves which it does not know.
    /// Where there can be one only, it is for who asks for a name: dockerd can number by itself.
    fn may_place(&self, sandbox: &Path, asked: Option<&LinkName>) -> bool {
        let placed = |known: &StoredEndpoint| known.spec.origin == Origin::Docker;
        !self.lone_placements
            || (asked.is_some()
                && !self.restored.contains(sandbox)
                && !self.intent.endpoints_in(sandbox).any(placed))
    }

    /// A dockerd begins, or may have begun: links in these sandboxes are strange to it.
    pub(super) fn note_restored(&mut self) {
        let docker = self.intent.endpoints().filter(|known| known.spec.origin == Origin::Docker);
        let paths = docker.filter_map(|known| match &known.spec.attach {
            Attach::Netns { path, .. } => Some(path.clone()),
            Attach::HandOff | Attach::AtJoin { .. } => None,
        });
        self.restored.extend(paths);
        let kernel = &mut self.kernel;
        self.restored.retain(|path| kernel.sandbox(path).is_ok());
    }

    /// Makes the link on the host for dockerd to take, which numbers it behind what is asked for:
    /// the first `lan0` of a sandbox is called so.
    fn hand_over(
        &mut self,
        network: &NetworkSpec,
        stored: StoredEndpoint,
        asked: Option<LinkName>,
        sandbox: &Path,
    ) -> Result<StoredEndpoint> {
        let mut handed = stored.clone();
        handed.spec.attach = Attach::HandOff;
        handed.phase = EndpointPhase::Ready;
        let handed = self.remake(network, &stored, handed)?;
        self.warn_of_sysctls(&handed.spec);
        let prefix = self.free_prefix(network, asked.as_ref(), sandbox);
        if let Some(name) = asked {
            tracing::warn!(
                endpoint = %stored.spec.id.short(),
                interface = %name,
                prefix,
                "dockerd numbers this interface: its name may be another than asked for"
            );
        }
        self.prefixes.insert(stored.spec.id, prefix);
        Ok(handed)
    }

    /// The prefix for a link that is handed over: that of the name asked for, or else the network's;
    /// none behind which a placed link has a number, which dockerd would give again.
    fn free_prefix(
        &self,
        network: &NetworkSpec,
        asked: Option<&LinkName>,
        sandbox: &Path,
    ) -> String {
        let DriverSpec::Bridge(bridge) = &network.driver;
        let bare =
            asked.map(|name| name.as_str().trim_end_matches(|last: char| last.is_ascii_digit()));
        let bare = bare.filter(|bare| !bare.is_empty());
        let is_free = |prefix: &&str| {
            let mut placed = self.intent.interfaces_in(sandbox);
            !placed.any(|name| number_after(name, prefix).is_some())
        };
        let mut prefixes = bare.into_iter().chain([bridge.interface_prefix.as_str()]);
        prefixes.find(is_free).unwrap_or(DOCKERS_PREFIX).to_owned()
    }

    /// Makes the link in the sandbox, under the name asked for or the lowest free one.
    fn place(
        &mut self,
        network: &NetworkSpec,
        stored: StoredEndpoint,
        asked: Option<LinkName>,
        (path, id): (&Path, SandboxId),
    ) -> Result<StoredEndpoint> {
        // Before the link is there: it would hear its own address announced by another.
        self.announce(network, &stored.spec);
        let place = |interface: LinkName| {
            let mut placed = stored.clone();
            let path = PathBuf::from(path);
            placed.spec.attach = Attach::Netns { path, id, interface, default_route: false };
            placed.phase = EndpointPhase::Joined;
            placed
        };
        if let Some(name) = asked {
            return self.remake(network, &stored, place(name));
        }
        let DriverSpec::Bridge(bridge) = &network.driver;
        let mut number = 0;
        loop {
            let name = format!("{}{number}", bridge.interface_prefix).parse();
            let name: LinkName = name.map_err(|why: String| Error::conflict("interface", why))?;
            let used = self.intent.interfaces_in(path).any(|used| *used == name);
            number += 1;
            match if used { None } else { Some(self.remake(network, &stored, place(name))) } {
                Some(Err(error)) if number < NUMBERS && is_taken(&error) => {}
                Some(result) => return result,
                None => {}
            }
        }
    }

    /// Takes the endpoint from one way of being attached to another, or leaves all as it was.
    fn remake(
        &mut self,
        network: &NetworkSpec,
        old: &StoredEndpoint,
        new: StoredEndpoint,
    ) -> Result<StoredEndpoint> {
        let plan =
            delta(&self.endpoint_objects(network, old), &self.endpoint_objects(network, &new));
        self.record(new.clone())?;
        match execute(&mut *self.kernel, &plan) {
            Ok(()) => Ok(new),
            // The record says what is left, and goes with it when the endpoint is removed.
            Err(error) if error.class == ErrorClass::Stuck => Err(error),
            Err(error) => {
                if let Err(lost) = self.record(old.clone()) {
                    self.note("store", lost.to_string());
                }
                Err(error)
            }
        }
    }

    /// dockerd takes the link out of the sandbox, or we do where we placed it; published ports are
    /// withdrawn. Unknown endpoints are no error: dockerd may say it twice.
    pub fn leave(&mut self, network: NetworkId, endpoint: EndpointId) -> Result<()> {
        self.withdraw(network, endpoint)?;
        let Ok((network, mut stored)) = self.living_endpoint(network, endpoint) else {
            return Ok(());
        };
        self.remember_siblings(stored.spec.id);
        let before = self.remains(&network, &stored)?;
        stored.phase = EndpointPhase::Leaving;
        stored.spec.asked.clear();
        let plan = delta(&before, &self.endpoint_objects(&network, &stored));
        self.record(stored.clone())?;
        let errors = roll_forward(&mut *self.kernel, &plan);
        if let Some(left) = errors.into_iter().next() {
            return Err(left.error);
        }
        match &stored.spec.attach {
            Attach::Netns { interface, .. } => {
                let interface = Some(interface.clone());
                stored.spec.attach = Attach::AtJoin { interface };
                self.record(stored)
            }
            Attach::HandOff | Attach::AtJoin { .. } => Ok(()),
        }
    }

    /// What is to be removed of an endpoint. Nothing is touched in a namespace that has taken the
    /// place of its sandbox.
    pub(super) fn remains(
        &mut self,
        network: &NetworkSpec,
        stored: &StoredEndpoint,
    ) -> Result<Vec<Wanted>> {
        let mut stored = stored.clone();
        if let Attach::Netns { path, id, .. } = &stored.spec.attach {
            // Also where it has left already, but its link would not go.
            stored.phase = EndpointPhase::Joined;
            if self.is_lost(path, *id)? {
                stored.spec.attach = Attach::HandOff;
            }
        }
        Ok(self.endpoint_objects(network, &stored))
    }

    /// Whether a sandbox has ended: nothing is at its path, or another namespace.
    pub(super) fn is_lost(&mut self, path: &Path, id: SandboxId) -> Result<bool> {
        match self.kernel.sandbox(path) {
            Ok(found) => Ok(found != id),
            Err(error) if [Errno::ENOENT as i32, Errno::EINVAL as i32].contains(&error.errno) => {
                Ok(true)
            }
            Err(error) => {
                let doing = format!("netns {}", path.display());
                Err(Error::unavailable(doing, error.to_string()).with_errno(error.errno))
            }
        }
    }
}

impl Engine {
    /// dockerd writes sysctls of a link that it takes, from 27 on; before, nobody does.
    pub(super) fn warn_of_sysctls(&self, endpoint: &EndpointSpec) {
        let handed = endpoint.attach == Attach::HandOff;
        if handed && !endpoint.sysctls.is_empty() && !self.docker_announces {
            tracing::warn!(
                endpoint = %endpoint.id.short(),
                "dockerd takes this link and writes its sysctls from 27 on; an older one ignores \
                 them, but for an interface with a name of its own (endpoint option ifname)"
            );
        }
    }
}

/// How an endpoint of Docker's is attached, as far as that is known before its sandbox is.
pub(super) fn attach_of(network: &NetworkSpec, asked: Option<LinkName>) -> Attach {
    let DriverSpec::Bridge(bridge) = &network.driver;
    let asked = asked.filter(|name| {
        let dockers = number_after(name, DOCKERS_PREFIX).is_some();
        if dockers {
            tracing::warn!(
                interface = %name,
                "dockerd gives names like this itself: the interface gets the network's prefix and \
                 the lowest free number"
            );
        }
        !dockers
    });
    match asked {
        None if bridge.interface_prefix == DOCKERS_PREFIX => Attach::HandOff,
        interface => Attach::AtJoin { interface },
    }
}

/// The number of an interface that is named by a prefix and one.
fn number_after<'a>(name: &'a LinkName, prefix: &str) -> Option<&'a str> {
    let digits = |rest: &&str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name.as_str().strip_prefix(prefix).filter(digits)
}

fn is_taken(error: &Error) -> bool {
    error.errno == Some(Errno::EEXIST as i32)
}

/// The answer to dockerd; `handed` is the prefix for a link that is handed over, where it is not
/// the network's.
fn joined(network: &NetworkSpec, endpoint: &EndpointSpec, handed: Option<&str>) -> Joined {
    let DriverSpec::Bridge(bridge) = &network.driver;
    let gateway = |address: Option<IpAddr>| {
        let address = address.filter(|_| network.reach == Reach::External)?;
        network.gateway_for(address)
    };
    let v4 = gateway(endpoint.v4.map(|net| net.addr().into()));
    let v6 = gateway(endpoint.v6.map(|net| net.addr().into()));
    let prefix = &bridge.interface_prefix;
    Joined {
        source: match &endpoint.attach {
            Attach::HandOff => Some(driver::sandbox_end_name(endpoint.id)),
            Attach::Netns { .. } | Attach::AtJoin { .. } => None,
        },
        prefix: match &endpoint.attach {
            Attach::Netns { interface, .. } if number_after(interface, prefix).is_none() => {
                interface.to_string()
            }
            Attach::HandOff => handed.unwrap_or(prefix).to_owned(),
            Attach::Netns { .. } | Attach::AtJoin { .. } => prefix.clone(),
        },
        gateway: v4.and_then(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }),
        gateway_v6: v6.and_then(|address| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }),
    }
}
