//! Ports chosen again, because the setting of their network changes what they resolve to.

use super::choice::{Chosen, Free, Refused, Wish, wishes};
use super::index::PortIndex;
use super::{ATTEMPTS, is_choice};
use crate::engine::{Engine, Mode};
use crate::model::{EndpointSpec, Error, NetworkSpec, PortRange, Protocol, Result, StoredEndpoint};

/// The endpoints of a network with their ports as its new setting has them.
pub(in crate::engine) struct Again {
    /// All of them.
    pub(in crate::engine) endpoints: Vec<StoredEndpoint>,
    wishes: Vec<Wish>,
}

impl Again {
    /// The port of our choice that another program turned out to have.
    pub(in crate::engine) fn taken(&self, error: &Error) -> Option<(Protocol, u16)> {
        error.port.filter(|taken| is_choice(&self.wishes, *taken))
    }
}

/// An endpoint while its ports are chosen.
struct Choosing<'a> {
    old: &'a StoredEndpoint,
    /// What has no port yet.
    pending: Vec<Wish>,
    chosen: Chosen,
}

impl Choosing<'_> {
    fn take(&mut self, index: &mut PortIndex, wish: &Wish, port: u16) {
        self.chosen.push(wish, port);
        index.add(&EndpointSpec { ports: wish.at(port), ..self.old.spec.clone() });
    }

    /// The host port that this wish has now.
    fn has(&self, wish: &Wish) -> Option<u16> {
        let same = self.old.spec.ports.iter().filter(|old| old.protocol == wish.protocol);
        let mut pairs = same
            .flat_map(|old| old.host_ports.iter().zip(old.container_ports().iter()))
            .filter(|(_, container)| *container == wish.container)
            .map(|(host, _)| host);
        pairs.find(|host| {
            wish.host_ports.is_none_or(|ports| ports.first() <= *host && *host <= ports.last())
        })
    }
}

impl Engine {
    /// Chooses for every endpoint that publishes: fixed ports first, then those that it has by
    /// now, so that a port that can stay does; free ones last. What stands in the way of a fixed
    /// one is named.
    pub(in crate::engine) fn choose_again(
        &mut self,
        network: &NetworkSpec,
        endpoints: &[StoredEndpoint],
        refused: &Refused,
        mode: Mode,
    ) -> Result<Again> {
        let mut index = self.ports.clone();
        let mut choosing = Vec::new();
        for old in endpoints {
            index.remove(&old.spec);
            let asked = if old.spec.publishes { old.spec.asked.as_slice() } else { &[] };
            let pending =
                wishes(network, &old.spec, asked).map_err(|error| of(&old.spec, error))?;
            choosing.push(Choosing { old, pending, chosen: Chosen::default() });
        }
        let wishes = choosing.iter().flat_map(|one| one.pending.clone()).collect();
        for one in &mut choosing {
            for wish in std::mem::take(&mut one.pending) {
                let Some(port) = wish.fixed() else {
                    one.pending.push(wish);
                    continue;
                };
                self.check_again(&mut index, one, (&wish, port), mode)
                    .map_err(|error| of(&one.old.spec, error))?;
                one.take(&mut index, &wish, port);
            }
        }
        let ephemeral = self.facts.ephemeral_ports;
        for one in &mut choosing {
            for wish in std::mem::take(&mut one.pending) {
                let free = Free { index: &index, endpoint: one.old.spec.id, ephemeral, refused };
                match one.has(&wish).filter(|port| free.is_free(&wish, *port, &one.chosen)) {
                    Some(port) => one.take(&mut index, &wish, port),
                    None => one.pending.push(wish),
                }
            }
        }
        for one in &mut choosing {
            for wish in std::mem::take(&mut one.pending) {
                let free = Free { index: &index, endpoint: one.old.spec.id, ephemeral, refused };
                let port =
                    free.choose(&wish, &one.chosen).map_err(|error| of(&one.old.spec, error))?;
                one.take(&mut index, &wish, port);
            }
        }
        let endpoints = choosing.into_iter().map(|one| {
            let mut new = one.old.clone();
            new.spec.ports = one.chosen.into_blocks();
            new
        });
        Ok(Again { endpoints: endpoints.collect(), wishes })
    }

    fn check_again(
        &mut self,
        index: &mut PortIndex,
        one: &Choosing<'_>,
        (wish, port): (&Wish, u16),
        mode: Mode,
    ) -> Result<()> {
        let Some(single) = PortRange::single(port) else { return Ok(()) };
        for host in &wish.hosts {
            let doing = format!("port {host}:{port}/{}", wish.protocol);
            if one.chosen.meets(wish.protocol, &[*host], port) {
                return Err(Error::usage(doing, "it is asked for twice"));
            }
            let owners: Vec<_> = index.owners(wish.protocol, *host, single).collect();
            for owner in owners {
                let Some(ghost) = self.ghost(owner)? else {
                    return Err(self.taken_by(owner, doing));
                };
                index.remove(&ghost.spec);
                if mode == Mode::Apply {
                    self.bury_if_dead(owner)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the host may be asked for yet another port of our choice.
    pub(in crate::engine) fn may_try_again(refused: &Refused) -> bool {
        refused.len() < ATTEMPTS
    }
}

fn of(endpoint: &EndpointSpec, error: Error) -> Error {
    error.within(format!("endpoint \"{}\"", endpoint.label()))
}
