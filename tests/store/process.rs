//! What takes a process of its own: kill -9 and umasks.

use crate::*;

/// This test binary once more, as a process of its own that runs [`child_process`].
#[expect(clippy::disallowed_methods, reason = "a process that can be killed")]
fn child(role: &str, dirs: &Dirs) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "process::child_process", "--nocapture"])
        .env("NETAGENT_TEST_ROLE", role)
        .env("NETAGENT_TEST_STATE", &dirs.state)
        .env("NETAGENT_TEST_RUNTIME", &dirs.runtime)
        .stdout(Stdio::piped());
    command
}

fn spawn(command: &mut Command) -> Child {
    let _nobody_opens = MAKING_A_CHILD.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// No test by itself: what [`child`] runs.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("NETAGENT_TEST_ROLE") else { return };
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let open = || Store::open(&path("NETAGENT_TEST_STATE"), &path("NETAGENT_TEST_RUNTIME"));
    if role == "umask" {
        let umask = std::env::var("NETAGENT_TEST_UMASK").unwrap();
        let umask = u32::from_str_radix(&umask, 8).unwrap();
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
        open().unwrap();
        return;
    }
    let (mut store, loaded) = open().unwrap();
    let first = u32::try_from(loaded.intent.endpoints().count()).unwrap();
    let mut out = std::io::stdout();
    for number in first.. {
        let mut network = lan(1);
        network.spec.created_ms = u64::from(number);
        let put = [
            Change::PutNetwork(Box::new(network)),
            Change::PutEndpoint(Box::new(endpoint(number))),
        ];
        store.commit(&put).unwrap();
        writeln!(out, "acknowledged {number}").unwrap();
    }
}

fn acknowledged(line: &str) -> Option<u32> {
    line.split_once("acknowledged ")?.1.trim().parse().ok()
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let dirs = Dirs::new();
    let mut last = 0;
    for round in 1..=12 {
        let mut writer: Child = spawn(&mut child("commits", &dirs));
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < round * 3 {
            let line = lines.next().expect("the writer ended").unwrap();
            seen += u32::from(acknowledged(&line).is_some_and(|number| {
                last = number;
                true
            }));
        }
        writer.kill().unwrap();
        // What it had acknowledged before the signal reached it counts as well.
        let rest = lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)).last();
        last = rest.unwrap_or(last);
        writer.wait().unwrap();
        let (_, loaded) = dirs.open().unwrap();
        let endpoints = u32::try_from(loaded.intent.endpoints().count()).unwrap();
        // One more may have been written and not yet acknowledged.
        assert!(endpoints == last + 1 || endpoints == last + 2, "{endpoints} of {last}");
        let network = loaded.intent.network(NetworkId::from_bytes([1; 32])).unwrap();
        let created = u32::try_from(network.spec.created_ms).unwrap();
        assert!(created == last || created == last + 1, "{created} of {last}");
        for number in 0..=last {
            assert_eq!(loaded.intent.endpoint(endpoint(number).spec.id), Some(&endpoint(number)));
        }
    }
}

#[test]
fn directories_and_files_are_root_s_alone_whatever_the_umask() {
    for umask in ["0", "0277"] {
        let dirs = Dirs::new();
        let mut opener = spawn(child("umask", &dirs).env("NETAGENT_TEST_UMASK", umask));
        let status = opener.wait().unwrap();
        assert!(status.success());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&dirs.state), mode(&dirs.runtime)), (0o700, 0o700));
        assert_eq!((mode(&dirs.state_file()), mode(&dirs.runtime_file())), (0o600, 0o600));
        std::fs::set_permissions(dirs.state_file(), PermissionsExt::from_mode(0o644)).unwrap();
        dirs.open().unwrap();
        assert_eq!(mode(&dirs.state_file()), 0o600);
    }
}
