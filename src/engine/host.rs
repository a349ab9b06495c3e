//! What the host has for all networks together, and how it was before us.

use std::collections::BTreeSet;

use super::Engine;
use crate::driver;
use crate::model::{
    Needs, NetworkId, NetworkPhase, NetworkSpec, Reach, Result, SavedSysctl, StoredNetwork,
};
use crate::object::{Object, Revert, Wanted};
use crate::store::Change;

impl Engine {
    /// What the networks need of the host, without one of them and with a new one; `None` when
    /// there is none.
    pub(super) fn needs(
        &self,
        without: Option<NetworkId>,
        with: Option<&NetworkSpec>,
    ) -> Option<Needs> {
        let others = self.intent.networks().filter(|known| Some(known.spec.id) != without);
        needs_of(others.map(|known| &known.spec).chain(with))
    }

    /// The same for those that are to last.
    pub(super) fn lasting_needs(&self) -> Option<Needs> {
        let ready = |known: &&StoredNetwork| known.phase == NetworkPhase::Ready;
        needs_of(self.intent.networks().filter(ready).map(|known| &known.spec))
    }

    /// The objects that meet these needs.
    pub(super) fn host_objects(&self, needs: Option<Needs>) -> Vec<Wanted> {
        let Some(needs) = needs else { return Vec::new() };
        let saved = self.saved.iter().map(|saved| (saved.key.clone(), self.value_before(saved)));
        driver::host_objects(&self.facts, &needs, &saved.collect())
    }

    /// What a sysctl goes back to. A host that has become a router since (dockerd writes
    /// ip_forward, which raises every link) stays one.
    pub(super) fn value_before(&self, saved: &SavedSysctl) -> String {
        let forwarding = saved.key.starts_with("net/ipv4/") && saved.key.ends_with("/forwarding");
        match self.facts.router && forwarding {
            true => "1".into(),
            false => saved.before.clone(),
        }
    }

    /// The host's sysctls that are about to be changed for the first time, as they are now.
    pub(super) fn unsaved(&self, host: &[Wanted]) -> Vec<SavedSysctl> {
        let known: BTreeSet<&str> = self.saved.iter().map(|saved| saved.key.as_str()).collect();
        let sysctls = host.iter().filter_map(|wanted| before_us(&wanted.object));
        sysctls.filter(|saved| !known.contains(saved.key.as_str())).collect()
    }

    /// Records them.
    pub(super) fn save_sysctls(&mut self, host: &[Wanted]) -> Result<()> {
        let new = self.unsaved(host);
        self.store.commit(&new.iter().cloned().map(Change::SaveSysctl).collect::<Vec<_>>())?;
        self.saved.extend(new);
        Ok(())
    }

    /// Forgets how the host's sysctls were where none of its objects needs them: they have been
    /// restored.
    pub(super) fn forget_sysctls(&mut self) -> Result<()> {
        let needed: BTreeSet<String> =
            self.host.iter().map(|wanted| wanted.object.key().name).collect();
        let gone = |saved: &&SavedSysctl| !needed.contains(&saved.key);
        let drop = |saved: &SavedSysctl| Change::DropSysctl(saved.key.clone());
        self.store.commit(&self.saved.iter().filter(gone).map(drop).collect::<Vec<_>>())?;
        self.saved.retain(|saved| needed.contains(&saved.key));
        Ok(())
    }
}

fn needs_of<'a>(networks: impl Iterator<Item = &'a NetworkSpec>) -> Option<Needs> {
    networks.fold(None, |needs, network| {
        let needs = needs.unwrap_or_default();
        let outside = network.reach == Reach::External;
        Some(Needs {
            outside: needs.outside || outside,
            outside_v6: needs.outside_v6 || (outside && network.v6().next().is_some()),
            adopted: {
                let link = driver::operators_link(network).filter(|_| outside);
                needs.adopted.into_iter().chain(link.cloned()).collect()
            },
        })
    })
}

/// The value that a wanted sysctl of the host will have to go back to; none where it is met
/// already.
fn before_us(object: &Object) -> Option<SavedSysctl> {
    match object {
        Object::Sysctl(sysctl) => match &sysctl.revert {
            Revert::To(before) if *before == sysctl.value => None,
            Revert::To(before) => {
                Some(SavedSysctl { key: sysctl.key.clone(), before: before.clone() })
            }
            Revert::WithLink => None,
        },
        Object::Table(_)
        | Object::Element(_)
        | Object::Link(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Hold(_)
        | Object::Accept(_) => None,
    }
}
