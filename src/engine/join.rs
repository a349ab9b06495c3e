//! Joining a sandbox and leaving it, and who places the link: dockerd or netagent.
//!
//! By default dockerd takes the link. It knows nothing of one that we place, so its own numbering
//! would run into it: that is done only under names that dockerd never gives.
//!
//! What an answer to dockerd is made of is recorded, so an agent that starts anew answers the same.
//! Once handed over, a link stays handed over until its endpoint is removed, behind the prefix of its
//! first sandbox.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::execute::{execute, roll_forward};
use super::ports::in_order;
use super::{Engine, Joined};
use crate::driver;
use crate::model::{
    Attach, EndpointId, EndpointPhase, EndpointSpec, Error, ErrorClass, LinkName, NetworkId,
    NetworkSpec, Origin, PortRequest, Reach, Result, SandboxId, StoredEndpoint,
};
use crate::object::Wanted;
use crate::plan::delta;

/// What dockerd's own interface names begin with.
const DOCKERS_PREFIX: &str = "eth";

/// Numbers that fit behind every prefix.
const NUMBERS: usize = 1000;

/// How many free ones are tried, where the sandbox may have interfaces that are not ours.
const ATTEMPTS: usize = 100;

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
        mut stored: StoredEndpoint,
        sandbox: &Path,
        ports: &[PortRequest],
    ) -> Result<Joined> {
        let placed = matches!(stored.spec.attach, Attach::Netns { .. });
        if placed && stored.phase == EndpointPhase::Leaving {
            // Its link would not go when it left.
            self.leave(network.id, stored.spec.id)?;
            stored = self.living_endpoint(network.id, stored.spec.id)?.1;
        }
        let mut wished = stored.clone();
        wished.phase = EndpointPhase::Joined;
        if network.reach == Reach::External && !stored.spec.publishes {
            wished.spec.asked = in_order(ports);
        }
        let spec = self.settle(network, &stored, wished, sandbox)?.spec;
        let joined = joined(network, &spec);
        if joined.source.is_some() && !self.docker_announces {
            self.announce(network, &spec);
        }
        Ok(joined)
    }

    /// Makes the endpoint what is `wished`: with its link, where it was left open who places it, and
    /// open at its own address where that needs no translation. All of it, or all is as before.
    fn settle(
        &mut self,
        network: &NetworkSpec,
        stored: &StoredEndpoint,
        wished: StoredEndpoint,
        sandbox: &Path,
    ) -> Result<StoredEndpoint> {
        match &stored.spec.attach {
            Attach::HandOff => return self.remake(network, stored, wished),
            Attach::Netns { path, id, .. } => {
                if path == sandbox && !self.is_lost(path, *id)? {
                    return self.remake(network, stored, wished);
                }
                let doing = format!("sandbox \"{}\"", sandbox.display());
                return Err(Error::conflict(doing, format!("it is in \"{}\"", path.display())));
            }
            Attach::AtJoin => {}
        }
        match self.sandbox(sandbox) {
            Ok(id) if self.may_place(sandbox, stored.spec.naming.asked.as_ref()) => {
                self.place(network, stored, wished, (sandbox, id))
            }
            Ok(_) => self.hand_over(network, stored, wished, sandbox),
            // Before 28 dockerd makes a container's namespace after this.
            Err(error) if error.errno == Some(Errno::ENOENT as i32) => {
                self.hand_over(network, stored, wished, sandbox)
            }
            Err(error) => Err(error),
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
            Attach::HandOff | Attach::AtJoin => None,
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
        stored: &StoredEndpoint,
        mut wished: StoredEndpoint,
        sandbox: &Path,
    ) -> Result<StoredEndpoint> {
        let prefix = self.free_prefix(network, wished.spec.naming.asked.as_ref(), sandbox);
        wished.spec.attach = Attach::HandOff;
        wished.spec.naming.told = Some(prefix);
        // Until the link is there an agent that starts anew must make both its ends.
        wished.phase = EndpointPhase::Ready;
        let mut handed = self.remake(network, stored, wished)?;
        handed.phase = EndpointPhase::Joined;
        self.record(handed.clone())?;
        self.warn_of_sysctls(&handed.spec);
        if let Some(name) = &handed.spec.naming.asked {
            tracing::warn!(
                endpoint = %handed.spec.id.short(),
                interface = %name,
                prefix = handed.spec.naming.told,
                "dockerd numbers this interface: its name may be another than asked for"
            );
        }
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
        let bare =
            asked.map(|name| name.as_str().trim_end_matches(|last: char| last.is_ascii_digit()));
        let bare = bare.filter(|bare| !bare.is_empty());
        let is_free = |prefix: &&str| {
            let mut placed = self.intent.interfaces_in(sandbox);
            !placed.any(|name| number_after(name, prefix).is_some())
        };
        let mut prefixes = bare.into_iter().chain([driver::interface_prefix(network)]);
        prefixes.find(is_free).unwrap_or(DOCKERS_PREFIX).to_owned()
    }

    /// Makes the link in the sandbox, under the name asked for or the lowest free one.
    fn place(
        &mut self,
        network: &NetworkSpec,
        stored: &StoredEndpoint,
        wished: StoredEndpoint,
        (path, id): (&Path, SandboxId),
    ) -> Result<StoredEndpoint> {
        // Before the link is there: it would hear its own address announced by another.
        self.announce(network, &stored.spec);
        let place = |interface: LinkName| {
            let mut placed = wished.clone();
            let path = PathBuf::from(path);
            placed.spec.attach = Attach::Netns { path, id, interface, default_route: false };
            placed
        };
        if let Some(name) = &stored.spec.naming.asked {
            return self.remake(network, stored, place(name.clone()));
        }
        let mut taken = None;
        let prefix = driver::interface_prefix(network);
        for name in self.free_names(path, prefix).take(ATTEMPTS) {
            match self.remake(network, stored, place(name)) {
                Err(error) if error.errno == Some(Errno::EEXIST as i32) => taken = Some(error),
                result => return result,
            }
        }
        Err(taken.unwrap_or_else(|| no_free_name(path, prefix)))
    }

    /// The names of a prefix and a number that no endpoint of ours has in the sandbox, lowest first.
    pub(super) fn free_names(
        &self,
        sandbox: &Path,
        prefix: &str,
    ) -> impl Iterator<Item = LinkName> + use<> {
        let used: BTreeSet<LinkName> = self.intent.interfaces_in(sandbox).cloned().collect();
        let prefix = prefix.to_owned();
        let names = (0..NUMBERS).filter_map(move |number| format!("{prefix}{number}").parse().ok());
        names.filter(move |name| !used.contains(name))
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
            Attach::Netns { .. } => {
                stored.spec.attach = Attach::AtJoin;
                self.record(stored)
            }
            Attach::HandOff | Attach::AtJoin => Ok(()),
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
        let gone = [Errno::ENOENT, Errno::EINVAL].map(|errno| Some(errno as i32));
        match self.sandbox(path) {
            Ok(found) => Ok(found != id),
            Err(error) if gone.contains(&error.errno) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Which namespace is at `path` now.
    pub(super) fn sandbox(&mut self, path: &Path) -> Result<SandboxId> {
        self.kernel.sandbox(path).map_err(|error| {
            let doing = format!("netns {}", path.display());
            Error::unavailable(doing, error.to_string()).with_errno(error.errno)
        })
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

/// The name asked for, unless dockerd may give it itself.
pub(super) fn not_dockers(asked: LinkName) -> Option<LinkName> {
    if number_after(&asked, DOCKERS_PREFIX).is_none() {
        return Some(asked);
    }
    tracing::warn!(
        interface = %asked,
        "dockerd gives names like this itself: the interface gets the network's prefix and the \
         lowest free number"
    );
    None
}

/// How an endpoint of Docker's is attached, as far as that is known before its sandbox is.
pub(super) fn attach_of(network: &NetworkSpec, asked: Option<&LinkName>) -> Attach {
    match asked {
        None if driver::interface_prefix(network) == DOCKERS_PREFIX => Attach::HandOff,
        Some(_) | None => Attach::AtJoin,
    }
}

pub(super) fn no_free_name(sandbox: &Path, prefix: &str) -> Error {
    let doing = format!("interface in netns {}", sandbox.display());
    Error::conflict(doing, format!("no name \"{prefix}…\" is free"))
}

/// The number of an interface that is named by a prefix and one.
fn number_after<'a>(name: &'a LinkName, prefix: &str) -> Option<&'a str> {
    let digits = |rest: &&str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name.as_str().strip_prefix(prefix).filter(digits)
}

/// The answer to dockerd.
fn joined(network: &NetworkSpec, endpoint: &EndpointSpec) -> Joined {
    let gateway = |address: Option<IpAddr>| {
        let address = address.filter(|_| network.reach == Reach::External)?;
        network.gateway_for(address)
    };
    let v4 = gateway(endpoint.v4.map(|net| net.addr().into()));
    let v6 = gateway(endpoint.v6.map(|net| net.addr().into()));
    let prefix = driver::interface_prefix(network);
    Joined {
        source: match &endpoint.attach {
            Attach::HandOff => Some(driver::sandbox_end_name(endpoint.id)),
            Attach::Netns { .. } | Attach::AtJoin => None,
        },
        prefix: match &endpoint.attach {
            Attach::Netns { interface, .. } if number_after(interface, prefix).is_none() => {
                interface.to_string()
            }
            Attach::HandOff => endpoint.naming.told.as_deref().unwrap_or(prefix).to_owned(),
            Attach::Netns { .. } | Attach::AtJoin => prefix.to_owned(),
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
