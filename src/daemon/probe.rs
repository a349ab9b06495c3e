//! Refuses to start on a kernel that cannot do the work, naming what it lacks.

use crate::kernel::linux::probe::{Missing, probe};
use crate::model::{Error, Result};

/// Tries what the agent needs of the kernel.
pub(super) fn check() -> Result<()> {
    probe().map_err(|missing| refusal(&missing))
}

fn refusal(missing: &[Missing]) -> Error {
    let lacks: Vec<String> =
        missing.iter().map(|missing| format!("{} ({})", missing.what, missing.why)).collect();
    let advice: Vec<&str> = missing.iter().map(|missing| missing.advice).collect();
    let errno = missing.iter().map(|missing| missing.why.errno).find(|errno| *errno != 0);
    let error = Error::unavailable(
        "start the agent",
        format!("this kernel lacks what it needs: {}", lacks.join("; ")),
    )
    .advise(advice.join("\n  "));
    match errno {
        Some(errno) => error.with_errno(errno),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelError;

    #[test]
    fn the_refusal_names_all_that_is_missing_and_what_to_do() {
        let one = |what, errno, advice| Missing { what, why: KernelError::new(errno, ""), advice };
        let error = refusal(&[
            one("bridge links", nix::libc::EOPNOTSUPP, "`modprobe bridge`"),
            one("veth pairs", nix::libc::EOPNOTSUPP, "`modprobe veth`"),
        ]);
        let text = error.to_string();
        for words in
            ["bridge links", "EOPNOTSUPP", "veth pairs", "modprobe bridge", "modprobe veth"]
        {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(error.errno, Some(nix::libc::EOPNOTSUPP));
    }
}
