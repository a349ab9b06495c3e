//! Turns a panic inside the embedded database into a value.
//!
//! The database asserts what damaged pages may break. A damaged file must end in a message that says
//! what to do, not in a stack trace.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread's panics are expected and said in other words.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `None` when it panicked. Nothing is printed for it.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                usual(info);
            }
        }));
    });
    let before = EXPECTED.replace(true);
    // What `work` leaves half done is the database itself, which is dropped and opened anew.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_none_and_a_value_some() {
        assert_eq!(quietly(|| 1), Some(1));
        let empty: Vec<u8> = Vec::new();
        assert_eq!(quietly(|| empty[1]), None);
        assert!(!EXPECTED.get());
    }
}
