//! DOCKER-USER as `iptables -S` prints it. Only our own rule is understood.

use iptables::IPTables;

use super::{CHAIN, Calls, OURS, RESOURCE_PROBLEM, refusal};
use crate::kernel::KernelError;
use crate::model::Mark;

/// The chain's rules as `-S` prints them, without `-A DOCKER-USER`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chain {
    rules: Vec<String>,
}

impl Chain {
    pub(super) fn read(tool: &IPTables) -> Result<Option<Self>, KernelError> {
        let output = tool.call(&format!("-S {CHAIN}"))?;
        if output.status.code() == Some(RESOURCE_PROBLEM) {
            return Err(refusal(&output));
        }
        let listing = String::from_utf8_lossy(&output.stdout);
        // The nft variant answers for a missing chain in several ways, but never with its name.
        Ok(output.status.success().then(|| Self::parse(&listing)).filter(|_| !listing.is_empty()))
    }

    fn parse(listing: &str) -> Self {
        let prefix = format!("-A {CHAIN} ");
        let rules = listing.lines().filter_map(|line| line.strip_prefix(&prefix));
        Self { rules: rules.map(|rule| rule.trim().to_owned()).collect() }
    }

    pub(super) fn ours(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(String::as_str).filter(|rule| is_ours(rule))
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(String::as_str).filter(|rule| !is_ours(rule))
    }

    /// Where our rule belongs among the others, counted from 1 as iptables does.
    pub(super) fn position(&self) -> i32 {
        let others = self.others().count();
        let before = match self.others().last() {
            Some("-j RETURN") => others.saturating_sub(1),
            Some(_) | None => others,
        };
        i32::try_from(before).unwrap_or(i32::MAX - 1) + 1
    }

    pub(super) fn is_placed(&self) -> bool {
        let at = self.rules.iter().position(|rule| is_ours(rule));
        self.ours().count() == 1
            && at.and_then(|at| i32::try_from(at + 1).ok()) == Some(self.position())
    }

    pub(super) fn remove_ours(&self, tool: &IPTables) -> Result<(), KernelError> {
        self.ours().try_for_each(|rule| tool.run(&format!("-D {CHAIN} {rule}")))
    }
}

fn is_ours(rule: &str) -> bool {
    rule.split_once("--comment ").is_some_and(|(_, rest)| {
        let quoted = rest.strip_prefix(&format!("\"{OURS}\""));
        let rest = quoted.or_else(|| rest.strip_prefix(OURS));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    })
}

/// The mark that a rule of ours accepts.
pub(super) fn mark_of(rule: &str) -> Option<Mark> {
    let (_, rest) = rule.split_once("--mark ")?;
    let value = rest.split(['/', ' ']).next()?.strip_prefix("0x")?;
    Mark::new(u32::from_str_radix(value, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str =
        "-m mark --mark 0x10000000/0x10000000 -m comment --comment netagent -j ACCEPT";

    fn chain(rules: &[&str]) -> Chain {
        let lines: Vec<String> =
            rules.iter().map(|rule| format!("-A DOCKER-USER {rule}\n")).collect();
        Chain::parse(&format!("-N DOCKER-USER\n{}", lines.concat()))
    }

    #[test]
    fn our_rule_belongs_at_the_end_but_before_a_final_return() {
        assert_eq!(chain(&[]).position(), 1);
        assert_eq!(chain(&["-j RETURN"]).position(), 1);
        assert_eq!(chain(&["-s 10.0.0.1/32 -j DROP", "-j RETURN"]).position(), 2);
        assert_eq!(chain(&["-j RETURN", "-s 10.0.0.1/32 -j DROP"]).position(), 3);
        assert!(chain(&["-i eth0 -j DROP", RULE, "-j RETURN"]).is_placed());
        assert!(!chain(&["-j RETURN", RULE]).is_placed());
        assert!(!chain(&[RULE, "-i eth0 -j DROP"]).is_placed());
        assert!(!chain(&[RULE, RULE]).is_placed());
    }

    #[test]
    fn only_our_comment_makes_a_rule_ours() {
        assert!(is_ours(RULE));
        assert!(is_ours(&RULE.replace("netagent", "\"netagent\"")));
        assert!(!is_ours("-m comment --comment \"netagent was here\" -j DROP"));
        assert!(!is_ours("-m comment --comment netagent2 -j DROP"));
        assert_eq!(mark_of(RULE), Some(Mark::DEFAULT));
    }
}
