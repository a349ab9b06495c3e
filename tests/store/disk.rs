//! Full disks.

use crate::*;

/// A small tmpfs that only this thread sees. `None` where that is not permitted.
#[expect(clippy::disallowed_methods, reason = "the thread ends with the test")]
fn small_disk(on: &Path) -> Option<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).ok()?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
    mount(Some("tmpfs"), on, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).ok()
}

fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("NETAGENT_REQUIRE_ROOT").is_none(), "{name}: {reason}");
    println!("SKIP {name}: {reason}");
}

fn on_small_disk(name: &'static str, test: impl FnOnce(&Path) + Send + 'static) {
    let run = move || {
        let dir = tempfile::tempdir().unwrap();
        match small_disk(dir.path()) {
            Some(()) => {
                test(dir.path());
                nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
            }
            None => skip(name, "needs root to mount a tmpfs"),
        }
    };
    // A thread of its own: it keeps its mount namespace until it ends.
    std::thread::spawn(run).join().unwrap();
}

/// Writes a file until there is no room left.
fn fill(disk: &Path) -> PathBuf {
    let ballast = disk.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    ballast
}

/// Fills the disk under a store until it refuses; answers what was acknowledged and the error.
fn write_until_full(store: &mut Store) -> (Vec<Change>, Error) {
    let mut written = Vec::new();
    for number in 100..20_000 {
        for change in [
            Change::PutEndpoint(Box::new(endpoint(number))),
            Change::PutNetwork(Box::new(lan((number % 100) as u8 + 100))),
        ] {
            match store.commit(std::slice::from_ref(&change)) {
                Ok(()) => written.push(change),
                Err(error) => return (written, error),
            }
        }
    }
    panic!("the disk never filled up");
}

#[test]
fn a_store_goes_on_by_itself_when_a_full_disk_has_room_again() {
    on_small_disk("a_store_goes_on_by_itself_when_a_full_disk_has_room_again", |disk| {
        let (state, runtime) = (disk.join("state"), disk.join("runtime"));
        let (mut store, _) = Store::open(&state, &runtime).unwrap();
        let ballast = fill(disk);
        let (mut expected, _) = write_until_full(&mut store);
        std::fs::remove_file(&ballast).unwrap();
        // Whether or not the refused one took effect, all of these are put over it.
        let again: Vec<Change> = (1..=255)
            .flat_map(|id| {
                [
                    Change::PutNetwork(Box::new(lan(id))),
                    Change::DropEndpoint(endpoint(u32::from(id)).spec.id),
                ]
            })
            .collect();
        for change in &again {
            store.commit(std::slice::from_ref(change)).unwrap();
        }
        expected.extend(again);
        drop(store);
        let (_, loaded) = Store::open(&state, &runtime).unwrap();
        let networks = |loaded: &Loaded| loaded.intent.networks().cloned().collect::<Vec<_>>();
        assert_eq!(networks(&loaded), networks(&after(&expected)));
    });
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_when_there_is_room() {
    on_small_disk("a_full_disk_loses_nothing_and_is_used_again_when_there_is_room", |disk| {
        let (state, runtime) = (disk.join("state"), disk.join("runtime"));
        let (mut store, _) = Store::open(&state, &runtime).unwrap();
        store.commit(&some_of_everything()).unwrap();
        let ballast = fill(disk);
        let mut expected = some_of_everything();
        let (written, error) = write_until_full(&mut store);
        expected.extend(written);
        let number = 30_000;
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
        assert_eq!(error.errno, Some(nix::libc::ENOSPC), "{error}");
        assert!(error.to_string().contains("is full"), "{error}");
        // Again and again while it is full: refused, and nothing breaks.
        for _ in 0..3 {
            let _ = store.commit(&[Change::PutEndpoint(Box::new(endpoint(number)))]);
        }
        // An agent that starts again meanwhile comes up or says why it cannot.
        drop(store);
        if let Err(error) = Store::open(&state, &runtime) {
            assert_eq!(error.errno, Some(nix::libc::ENOSPC), "{error}");
        }
        std::fs::remove_file(&ballast).unwrap();
        let (mut store, _) = Store::open(&state, &runtime).unwrap();
        for change in [
            Change::PutEndpoint(Box::new(endpoint(number))),
            Change::PutNetwork(Box::new(lan(99))),
            Change::PutEndpoint(Box::new(endpoint(number + 1))),
        ] {
            store.commit(std::slice::from_ref(&change)).unwrap();
            expected.push(change);
        }
        drop(store);
        assert_eq!(Store::open(&state, &runtime).unwrap().1, after(&expected));
    });
}

#[test]
fn a_store_that_cannot_be_made_on_a_full_disk_says_so_and_can_be_made_later() {
    on_small_disk("a_store_that_cannot_be_made_on_a_full_disk_says_so", |disk| {
        let (state, runtime) = (disk.join("state"), disk.join("runtime"));
        std::fs::create_dir(&state).unwrap();
        std::fs::create_dir(&runtime).unwrap();
        let ballast = fill(disk);
        check_refused(Store::open(&state, &runtime), ErrorClass::Unavailable, &["full"]);
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(Store::open(&state, &runtime).unwrap().1, Loaded::default());
    });
}
