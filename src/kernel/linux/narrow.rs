//! Looks through the flows into networks whose policy has changed.
//!
//! Which ones end is for [`Admission`] to say; here connection tracking is read and told.

use std::collections::{BTreeMap, BTreeSet};

use super::flows::{Edit, Flows, MARK, ORIGINAL, REPLY, TUPLE_PROTOCOL, attributes, ends};
use super::wire::Wire;
use crate::firewall::admission::{Admission, Flow, Treatment, Tuple, Ways};
use crate::firewall::nftables::wire::find;
use crate::kernel::KernelError;
use crate::model::{Family, LinkName, Mark};

/// CTA_TUPLE_MASTER: the flow that announced this one.
const MASTER: u16 = 14;

impl Flows {
    /// Ends what would not be let in now, and lets go on what was ended and would be.
    pub fn judge(
        &mut self,
        host: &mut Wire,
        mark: Mark,
        admissions: &[Admission],
    ) -> Result<(), KernelError> {
        let subnets = admissions.iter().flat_map(|admission| &admission.subnets);
        let families: BTreeSet<Family> = subnets.map(|net| Family::of(net.addr())).collect();
        if families.is_empty() {
            return Ok(());
        }
        let ways = ways(host)?;
        let edit = |flow: &Flow| {
            let mut treatments =
                admissions.iter().map(|admission| admission.treatment(flow, &ways));
            match treatments.find(|treatment| *treatment != Treatment::Leave)? {
                Treatment::Leave => None,
                Treatment::Forget => Some(Edit::Forget),
                Treatment::End => Some(Edit::Mark(mark.ended())),
                Treatment::Resume => Some(Edit::Mark(0)),
            }
        };
        for family in families {
            let flows = self.dump(family, |_| {})?;
            let edits = flows
                .iter()
                .filter_map(|message| Some((message, edit(&parse(attributes(message), mark)?)?)));
            self.edit(family, &edits.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

fn parse(attributes: &[u8], mark: Mark) -> Option<Flow> {
    let tuple = |kind| parse_tuple(find(attributes, kind)?);
    let is_ended = |value: &[u8]| *value == mark.ended().to_be_bytes();
    Some(Flow {
        sent: tuple(ORIGINAL)?,
        answered: tuple(REPLY)?,
        related: find(attributes, MASTER).is_some(),
        ended: find(attributes, MARK).is_some_and(is_ended),
    })
}

fn parse_tuple(tuple: &[u8]) -> Option<Tuple> {
    let (from, to) = ends(tuple)?;
    let transport = find(tuple, TUPLE_PROTOCOL)?;
    // CTA_PROTO_NUM 1, CTA_PROTO_SRC_PORT 2, CTA_PROTO_DST_PORT 3.
    let port = |kind| find(transport, kind)?.try_into().ok().map(u16::from_be_bytes);
    let protocol = *find(transport, 1)?.first()?;
    Some(Tuple { protocol, from, to, from_port: port(2), to_port: port(3) })
}

fn ways(host: &mut Wire) -> Result<Ways, KernelError> {
    let links = host.links()?.into_iter();
    let names: BTreeMap<u32, LinkName> =
        links.filter_map(|link| Some((link.index, link.name.parse().ok()?))).collect();
    let routes = host.routes()?.into_iter().filter(|route| route.is_main());
    let routes = routes.filter_map(|route| {
        let link = route.links.first().and_then(|index| names.get(index))?;
        Some((route.destination, link.clone()))
    });
    let local = host.addresses()?.iter().map(|address| address.net.addr()).collect();
    Ok(Ways { local, routes: routes.collect() })
}
