//! The one rule of ours in another owner's chain: DOCKER-USER accepts our mark.
//!
//! The rule stands last, before a final RETURN, so that the operator's rules decide first. Only
//! this chain is listed, and of FORWARD only asked whether the jump to it is there. Each call is
//! a process of 2 ms, so this is for the first and last network, never for an endpoint.
//!
//! A chain or jump that we make says so in the jump's comment, which outlives us: what has no such
//! comment is never removed. dockerd looks for a jump without one and adds it beside ours, which
//! harms nobody.

mod chain;

use std::collections::BTreeSet;
use std::error::Error;
use std::process::Output;

use iptables::IPTables;
use nix::errno::Errno;

use crate::kernel::KernelError;
use crate::model::{Family, Mark};
use crate::object::Accept;

use chain::{Chain, mark_of};

const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";
/// dockerd's and operators'.
const JUMP: &str = "FORWARD -j DOCKER-USER";
/// We made it, to a chain that was there.
const OUR_JUMP: &str = "FORWARD -m comment --comment netagent -j DOCKER-USER";
/// We made it and the chain.
const OUR_JUMP_AND_CHAIN: &str =
    "FORWARD -m comment --comment netagent:chain-and-jump -j DOCKER-USER";
/// The comment by which we know our rule.
const OURS: &str = "netagent";
/// Chains that only dockerd makes, old and new: while one is there, so is its DOCKER-USER.
const DOCKERD: [&str; 2] = ["DOCKER", "DOCKER-FORWARD"];
/// How long another program's lock on the tables is waited for, in seconds: a guess. The engine
/// waits too, so never for ever, which the bare `-w` of the `iptables` crate means.
const WAIT_SECONDS: u32 = 5;
/// RESOURCE_PROBLEM (iptables' include/xtables.h): the lock was not to be had.
const RESOURCE_PROBLEM: i32 = 4;

/// The two tools, looked for when first needed, and the only mark that is ever accepted.
pub struct Accepts {
    mark: Mark,
    v4: Tool,
    v6: Tool,
    /// The rule was asked for on a host without ip6tables.
    needless_v6: bool,
    /// Families whose chain we made, as long as our rule stays in it: a flush of FORWARD takes the
    /// jump away that says so.
    made: BTreeSet<Family>,
    /// What was there when the tables could last be read.
    seen: Vec<(Family, Option<Accept>)>,
}

enum Tool {
    Unknown,
    Found(IPTables),
    Missing(String),
}

/// Which of the two programs are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Available {
    /// `iptables`.
    pub v4: bool,
    /// `ip6tables`.
    pub v6: bool,
}

impl Accepts {
    /// For rules that accept `mark`.
    pub fn new(mark: Mark) -> Self {
        Self {
            mark,
            v4: Tool::Unknown,
            v6: Tool::Unknown,
            needless_v6: false,
            made: BTreeSet::new(),
            seen: Vec::new(),
        }
    }

    /// Whether there is anything to do here: whether `iptables` can be run. A tool that was missing
    /// is looked for again. Without `ip6tables` there is no chain of dockerd's that drops IPv6, so
    /// its rule counts as made.
    pub fn available(&mut self) -> Available {
        for (family, tool) in [(Family::V4, &mut self.v4), (Family::V6, &mut self.v6)] {
            if matches!(tool, Tool::Missing(_)) && is_in_path(program(family)) {
                *tool = Tool::Unknown;
            }
        }
        Available { v4: self.tool(Family::V4).is_ok(), v6: self.tool(Family::V6).is_ok() }
    }

    /// Puts the rule where it belongs; EEXIST where it is there. A mark that is not ours is
    /// never accepted: it can only come from undoing the removal of an out-of-place rule.
    pub fn create(&mut self, accept: &Accept) -> Result<(), KernelError> {
        if accept.mark != self.mark {
            return Ok(());
        }
        // Our rule is not there, so the chain may be another one by now.
        self.made.remove(&accept.family);
        self.put(accept)
    }

    fn put(&mut self, accept: &Accept) -> Result<(), KernelError> {
        if self.is_needless(accept.family) {
            self.needless_v6 = true;
            return Ok(());
        }
        self.seen.clear();
        let known = self.made.contains(&accept.family);
        let tool = self.tool(accept.family)?;
        let chain = Chain::read(tool)?;
        if chain.as_ref().is_some_and(|chain| chain.ours().next().is_some()) {
            return Err(KernelError::new(Errno::EEXIST as i32, "DOCKER-USER has the rule"));
        }
        let mut made = known || chain.is_none();
        if chain.is_none() {
            tool.run(&format!("-N {CHAIN}"))?;
        }
        match tool.jump()? {
            Some(jump) => made |= jump == OUR_JUMP_AND_CHAIN,
            None if made => tool.run(&format!("-I {OUR_JUMP_AND_CHAIN}"))?,
            None => tool.run(&format!("-I {OUR_JUMP}"))?,
        }
        let position = chain.unwrap_or_default().position();
        tool.run(&format!("-I {CHAIN} {position} {}", rule(accept.mark)))?;
        if made {
            self.made.insert(accept.family);
        }
        Ok(())
    }

    /// Takes the rule away wherever it stands, and puts it where it belongs. Where it stood
    /// before is not remembered, so taking this back leaves it in its place.
    pub fn change(&mut self, accept: &Accept) -> Result<(), KernelError> {
        if accept.mark != self.mark {
            return Ok(());
        }
        if !self.is_needless(accept.family) {
            let tool = self.tool(accept.family)?;
            if let Some(chain) = Chain::read(tool)? {
                chain.remove_ours(tool)?;
            }
        }
        self.put(accept)
    }

    /// Takes the rule away, and the jump and the chain where we made them and nobody uses them;
    /// ENOENT where there is no rule.
    pub fn delete(&mut self, accept: &Accept) -> Result<(), KernelError> {
        if self.is_needless(accept.family) {
            self.needless_v6 = false;
            return Ok(());
        }
        self.seen.clear();
        let known = self.made.remove(&accept.family);
        let tool = self.tool(accept.family)?;
        let chain = Chain::read(tool)?.unwrap_or_default();
        if chain.ours().next().is_none() {
            return Err(KernelError::new(Errno::ENOENT as i32, "DOCKER-USER has no such rule"));
        }
        chain.remove_ours(tool)?;
        let others_jump = tool.says(&format!("-C {JUMP}"))?;
        // Somebody's rules are in it, and only ours leads to them.
        if !others_jump && chain.others().next().is_some() {
            return Ok(());
        }
        let made_chain = known || tool.says(&format!("-C {OUR_JUMP_AND_CHAIN}"))?;
        for jump in [OUR_JUMP, OUR_JUMP_AND_CHAIN] {
            while tool.says(&format!("-C {jump}"))? {
                tool.run(&format!("-D {jump}"))?;
            }
        }
        if others_jump || !made_chain {
            return Ok(());
        }
        for dockers in DOCKERD {
            if tool.says(&format!("-S {dockers}"))? {
                return Ok(());
            }
        }
        tool.run(&format!("-X {CHAIN}"))
    }

    /// The rule as it stands; as it last stood while another program keeps the tables locked, since
    /// that must not keep the rest of the host from being repaired. One that is out of place, or
    /// that nothing jumps to, does not do what it is for: it is shown with a mark that is none of
    /// ours, so that it is changed.
    pub fn observe(&mut self, family: Family) -> Result<Option<Accept>, KernelError> {
        match self.look(family) {
            Ok(found) => {
                self.seen.retain(|(known, _)| *known != family);
                self.seen.push((family, found.clone()));
                Ok(found)
            }
            Err(error) => match self.seen.iter().find(|(known, _)| *known == family) {
                Some((_, last)) => {
                    tracing::warn!(%error, "DOCKER-USER cannot be read; taken for unchanged");
                    Ok(last.clone())
                }
                None => Err(error),
            },
        }
    }

    fn look(&mut self, family: Family) -> Result<Option<Accept>, KernelError> {
        if self.is_needless(family) {
            let made = Accept { family, mark: self.mark };
            return Ok(self.needless_v6.then_some(made));
        }
        let out_of_place = self.out_of_place();
        let Ok(tool) = self.tool(family) else { return Ok(None) };
        let Some(chain) = Chain::read(tool)? else { return Ok(None) };
        let Some(mark) = chain.ours().next().map(mark_of) else { return Ok(None) };
        let jump = tool.jump()?;
        let placed = chain.is_placed() && jump.is_some();
        if jump == Some(OUR_JUMP_AND_CHAIN) {
            self.made.insert(family);
        }
        let mark = mark.filter(|_| placed).unwrap_or(out_of_place);
        Ok(Some(Accept { family, mark }))
    }

    /// Any mark but ours.
    fn out_of_place(&self) -> Mark {
        Mark::new(self.mark.bits().rotate_left(1)).unwrap_or(Mark::DEFAULT)
    }

    fn is_needless(&mut self, family: Family) -> bool {
        family == Family::V6 && self.tool(family).is_err()
    }

    fn tool(&mut self, family: Family) -> Result<&IPTables, KernelError> {
        let tool = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        if matches!(tool, Tool::Unknown) {
            *tool = match iptables::new(family == Family::V6) {
                // We say ourselves how long.
                Ok(found) => Tool::Found(IPTables { has_wait: false, ..found }),
                Err(error) => Tool::Missing(error.to_string()),
            };
        }
        match tool {
            Tool::Found(found) => Ok(found),
            Tool::Missing(why) => Err(missing(family, why)),
            Tool::Unknown => Err(missing(family, "")),
        }
    }
}

/// What is asked of a tool, as on its command line.
trait Calls {
    fn call(&self, command: &str) -> Result<Output, KernelError>;

    /// Does it; the refusal is the tool's own sentence, without an errno.
    fn run(&self, command: &str) -> Result<(), KernelError> {
        let output = self.call(command)?;
        if output.status.success() { Ok(()) } else { Err(refusal(&output)) }
    }

    /// Whether it is so.
    fn says(&self, command: &str) -> Result<bool, KernelError> {
        let output = self.call(command)?;
        match output.status.code() {
            Some(RESOURCE_PROBLEM) => Err(refusal(&output)),
            Some(_) | None => Ok(output.status.success()),
        }
    }

    /// The first jump to DOCKER-USER, whoever made it.
    fn jump(&self) -> Result<Option<&'static str>, KernelError> {
        for jump in [JUMP, OUR_JUMP, OUR_JUMP_AND_CHAIN] {
            if self.says(&format!("-C {jump}"))? {
                return Ok(Some(jump));
            }
        }
        Ok(None)
    }
}

impl Calls for IPTables {
    fn call(&self, command: &str) -> Result<Output, KernelError> {
        let failed = |error: Box<dyn Error>| KernelError::new(0, error.to_string());
        self.execute(TABLE, &format!("{command} -w {WAIT_SECONDS}")).map_err(failed)
    }
}

fn refusal(output: &Output) -> KernelError {
    KernelError::new(0, String::from_utf8_lossy(&output.stderr).trim())
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

impl std::fmt::Debug for Accepts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepts").finish_non_exhaustive()
    }
}

fn missing(family: Family, why: &str) -> KernelError {
    let text = format!("{} cannot be run: {why}", program(family));
    KernelError::new(Errno::ENOENT as i32, text)
}

fn rule(mark: Mark) -> String {
    format!("-m mark --mark {mark}/{mark} -m comment --comment {OURS} -j ACCEPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ip6tables_the_accept_for_ipv6_counts_as_made() {
        let mut accepts = Accepts::new(Mark::DEFAULT);
        accepts.v6 = Tool::Missing("no such file".into());
        let accept = Accept { family: Family::V6, mark: Mark::DEFAULT };
        assert_eq!(accepts.observe(Family::V6), Ok(None));
        accepts.create(&accept).unwrap();
        assert_eq!(accepts.observe(Family::V6), Ok(Some(accept.clone())));
        accepts.change(&accept).unwrap();
        accepts.delete(&accept).unwrap();
        assert_eq!(accepts.observe(Family::V6), Ok(None));
        accepts.v4 = Tool::Missing("no such file".into());
        let accept = Accept { family: Family::V4, mark: Mark::DEFAULT };
        assert!(accepts.create(&accept).unwrap_err().text.contains("iptables cannot be run"));
    }

    #[test]
    fn a_tool_that_was_missing_is_looked_for_again() {
        if !is_in_path("iptables") {
            println!("SKIP a_tool_that_was_missing_is_looked_for_again: no iptables");
            return;
        }
        let mut accepts = Accepts::new(Mark::DEFAULT);
        accepts.v4 = Tool::Missing("no such file".into());
        assert!(accepts.available().v4);
    }
}
