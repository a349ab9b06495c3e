//! What other programs do to the host, and what they notice of ours.

use std::net::IpAddr;

use super::{Fake, Host};
use crate::firewall::admission::Admission;
use crate::kernel::Announcement;
use crate::model::{Facts, LinkName, Protocol};
use crate::object::{Hold, Netns, Object, ObjectKey};

impl Fake {
    /// Another program binds a port.
    pub fn occupy(&self, protocol: Protocol, address: IpAddr, port: u16) {
        self.host().busy.insert((protocol, address, port));
    }

    /// Another program writes ip_forward.
    pub fn set_router(&self, router: bool) {
        self.host().facts.router = router;
    }

    /// The host has become another one, but for what is ours.
    pub fn set_facts(&self, facts: Facts) {
        self.host().facts = facts;
    }

    /// Another program writes a sysctl.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.host().sysctls.insert((Netns::Host, key.to_owned()), value.to_owned());
    }

    /// Another program makes a thing, without our mark.
    pub fn add_foreign(&self, object: Object) {
        let mut host = self.host();
        host.foreign.insert(object.key());
        host.things.insert(object.key(), object);
    }

    /// Another program removes a thing, whatever it is.
    pub fn remove(&self, key: &ObjectKey) {
        let mut host = self.host();
        if let Some(Object::Link(link)) = host.things.get(key).cloned() {
            host.remove_link(&link.netns, &link.name);
        }
        host.things.remove(key);
        host.foreign.remove(key);
    }

    /// What neighbours have heard, oldest first.
    pub fn announced(&self) -> Vec<Announcement> {
        self.host().announced.clone()
    }

    /// What flows were looked through for, oldest first.
    pub fn admissions(&self) -> Vec<Vec<Admission>> {
        self.host().admissions.clone()
    }

    /// The kernel has no SCTP sockets.
    pub fn take_sctp_away(&self) {
        self.host().sctp = false;
    }

    /// A sandbox loses its name; it lives on, and what is inside is not seen any more.
    pub fn forget_namespace(&self, path: &std::path::Path) {
        let mut host = self.host();
        host.namespaces.remove(path);
        host.things.retain(|key, _| key.netns != Netns::Path(path.to_owned()));
    }

    /// The other end of this veth is in a namespace that nobody finds.
    pub fn hide_other_end(&self, link: &LinkName) {
        self.host().hidden.insert(link.clone());
    }
}

impl Host {
    /// Holds of a protocol that there are no sockets of.
    pub(super) fn without_socket(&self) -> Vec<Hold> {
        let mut found = Vec::new();
        for thing in self.things.values() {
            if let Object::Hold(hold) = thing
                && hold.protocol == Protocol::Sctp
                && !self.sctp
            {
                found.push(hold.clone());
            }
        }
        found
    }
}
