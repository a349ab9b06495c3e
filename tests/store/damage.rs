//! Damaged, cut off and newer files.

use crate::*;

/// Writes the bytes in place of a file, opens, and answers what was loaded.
fn load_with(dirs: &Dirs, file: &Path, bytes: &[u8]) -> Result<Loaded, Error> {
    std::fs::write(file, bytes).unwrap();
    dirs.open().map(|(_, loaded)| loaded)
}

fn filled() -> (Dirs, Loaded, [(PathBuf, Vec<u8>); 2]) {
    let dirs = Dirs::new();
    dirs.open().unwrap().0.commit(&some_of_everything()).unwrap();
    let files = [dirs.state_file(), dirs.runtime_file()].map(|path| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    });
    (dirs, after(&some_of_everything()), files)
}

#[track_caller]
fn check_damaged(result: Result<Loaded, Error>, expected: &Loaded, file: &Path, what: &str) {
    match result {
        Ok(loaded) => assert_eq!(&loaded, expected, "{what}: a wrong record was read"),
        Err(error) => {
            assert_eq!(error.class, ErrorClass::Unavailable, "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains(&file.display().to_string()), "{what}: {text}");
            assert!(!error.advice.is_empty(), "{what}: {text}");
        }
    }
}

#[test]
fn a_changed_byte_is_refused_or_was_in_unused_space() {
    let (dirs, expected, files) = filled();
    for (file, bytes) in &files {
        let json = bytes.windows(6).position(|at| at == b"{\"id\":").unwrap();
        let record = json.saturating_sub(5)..json + 200;
        let header = 0..320;
        let stride = (0..bytes.len()).step_by(bytes.len() / 200 + 1);
        for at in header.chain(record.clone()).chain(stride) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            let result = load_with(&dirs, file, &changed);
            assert!(!record.contains(&at) || result.is_err(), "byte {at} of a record was accepted");
            check_damaged(result, &expected, file, &format!("byte {at}"));
        }
        std::fs::write(file, bytes).unwrap();
    }
    assert_eq!(dirs.open().unwrap().1, expected);
}

/// After a crash a damaged last commit is taken for an unfinished one: the state before it is read,
/// whole. Nothing else may be.
#[test]
fn damage_after_a_crash_is_refused_or_falls_back_to_a_whole_commit() {
    let dirs = Dirs::new();
    let mut states = vec![Loaded::default()];
    let mut changes = Vec::new();
    let (mut store, _) = dirs.open().unwrap();
    for number in 0..20 {
        let change = Change::PutEndpoint(Box::new(endpoint(number)));
        store.commit(std::slice::from_ref(&change)).unwrap();
        changes.push(change);
        states.push(after(&changes));
    }
    // What a kill -9 now would leave.
    let bytes = std::fs::read(dirs.runtime_file()).unwrap();
    drop(store);
    let file = dirs.runtime_file();
    assert_eq!(load_with(&dirs, &file, &bytes).unwrap(), after(&changes));
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for at in (0..320).chain(used.iter().copied().step_by(used.len() / 300 + 1)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        match load_with(&dirs, &file, &changed) {
            Ok(loaded) => assert!(states.contains(&loaded), "byte {at}: a wrong record was read"),
            Err(error) => assert_eq!(error.class, ErrorClass::Unavailable, "byte {at}: {error}"),
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_whole() {
    let (dirs, expected, files) = filled();
    for (file, bytes) in &files {
        let lengths = (0..bytes.len()).step_by(bytes.len() / 100 + 1);
        for length in lengths.chain([1, 64, 4096, bytes.len() - 1]) {
            let result = load_with(&dirs, file, &bytes[..length]);
            check_damaged(result, &expected, file, &format!("cut at {length}"));
        }
        check_refused(
            {
                std::fs::write(file, b"").unwrap();
                dirs.open()
            },
            ErrorClass::Unavailable,
            &["empty", "move it aside"],
        );
        std::fs::write(file, bytes).unwrap();
    }
    assert_eq!(dirs.open().unwrap().1, expected);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let (dirs, expected, files) = filled();
    let (file, _) = &files[0];
    for bytes in [vec![0; 4096], b"netagent\n".to_vec(), vec![0xff; 1 << 20]] {
        let result = load_with(&dirs, file, &bytes);
        assert!(result.is_err());
        check_damaged(result, &expected, file, "no database");
    }
}

/// Changes one value in place, through the database itself.
fn tamper(file: &Path, table: &str, change: impl Fn(&mut Vec<u8>)) {
    let db = redb::Database::open(file).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let table = redb::TableDefinition::<&[u8], &[u8]>::new(table);
        let mut table = transaction.open_table(table).unwrap();
        let (key, mut value) = {
            let first = redb::ReadableTable::first(&table).unwrap().unwrap();
            (first.0.value().to_vec(), first.1.value().to_vec())
        };
        change(&mut value);
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

/// Writes a record as the first agent did: version 1, checksum over key and JSON, JSON.
fn put_first_version(file: &Path, table: &str, key: &[u8], json: &str) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(json.as_bytes());
    let sealed = [&[1][..], &crc.finalize().to_le_bytes(), json.as_bytes()].concat();
    let db = redb::Database::open(file).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let table = redb::TableDefinition::<&[u8], &[u8]>::new(table);
        transaction.open_table(table).unwrap().insert(key, sealed.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn records_of_the_first_version_are_read_and_written_anew_as_the_second() {
    let dirs = Dirs::new();
    drop(dirs.open().unwrap());
    let id = "03".repeat(32);
    let network = r#"{"id":"ID","name":"web","origin":"netagent","driver":{"bridge":{"bridge":"nab-3",
        "mtu":1450,"icc":"deny","masquerade":"on","host_binding":"127.0.0.1","interface_prefix":"eth"}},
        "ipam":"netagent","subnets":[{"pool":"10.1.0.0/24","gateway":"10.1.0.1","range":null,"aux":{}}],
        "reach":"external","labels":{},"options":{},"created_ms":7,"phase":"ready"}"#;
    let endpoint = r#"{"id":"ID","network":"ID","origin":"netagent","name":"box","v4":"10.1.0.2/24",
        "v6":null,"mac":"02:42:0a:01:00:02","attach":{"netns":{"path":"/run/netns/box","id":4026532,
        "interface":"eth0","default_route":true}},"ports":[{"protocol":"tcp","host":"0.0.0.0","first":8080,
        "last":8080,"container_first":80}],"phase":"ready"}"#;
    put_first_version(&dirs.state_file(), "networks", &[3; 32], &network.replace("ID", &id));
    put_first_version(&dirs.runtime_file(), "endpoints", &[3; 32], &endpoint.replace("ID", &id));

    let (mut store, loaded) = dirs.open().unwrap();
    let network = loaded.intent.network(NetworkId::from_bytes([3; 32])).unwrap();
    let DriverSpec::Bridge(bridge) = &network.spec.driver;
    assert_eq!(bridge.host_binding, HostAddress::At("127.0.0.1".parse().unwrap()));
    assert_eq!((bridge.icc, bridge.announce), (Icc::Deny, Announce::Once));
    let endpoint = loaded.intent.endpoint(EndpointId::from_bytes([3; 32])).unwrap();
    let expected = Attach::Netns {
        path: "/run/netns/box".into(),
        id: netagent::model::SandboxId(4_026_532),
        interface: "eth0".parse().unwrap(),
        default_route: true,
    };
    assert_eq!(endpoint.spec.attach, expected);
    assert_eq!(endpoint.spec.naming, Naming::default());
    assert!(endpoint.spec.publishes && endpoint.spec.asked.len() == 1);

    let changes = [
        Change::PutNetwork(Box::new(network.clone())),
        Change::PutEndpoint(Box::new(endpoint.clone())),
    ];
    store.commit(&changes).unwrap();
    drop(store);
    for (file, table) in [(dirs.state_file(), "networks"), (dirs.runtime_file(), "endpoints")] {
        tamper(&file, table, |value| assert_eq!(value[0], 2, "{table}"));
    }
    assert_eq!(dirs.open().unwrap().1, loaded);
}

#[test]
fn a_newer_record_is_refused_and_the_file_is_left_as_it_was() {
    for (table, at_state) in [("networks", true), ("endpoints", false), ("leases", false)] {
        let (dirs, ..) = filled();
        let file = if at_state { dirs.state_file() } else { dirs.runtime_file() };
        tamper(&file, table, |value| value[0] = 3);
        let before = std::fs::read(&file).unwrap();
        check_refused(dirs.open(), ErrorClass::Unavailable, &["version 3", "newer", table]);
        assert!(std::fs::read(&file).unwrap() == before, "{table}");
    }
}

#[test]
fn a_damaged_record_in_a_whole_database_is_named() {
    let (dirs, ..) = filled();
    tamper(&dirs.state_file(), "networks", |value| *value.last_mut().unwrap() ^= 1);
    let words = ["010101010101", "networks", "checksum", "state.redb", "move it aside"];
    check_refused(dirs.open(), ErrorClass::Unavailable, &words);
    let (dirs, ..) = filled();
    tamper(&dirs.runtime_file(), "leases", Vec::clear);
    check_refused(dirs.open(), ErrorClass::Unavailable, &["10.0.1.0/24 10.0.1.1", "empty"]);
}

#[test]
fn a_table_of_a_newer_agent_is_refused() {
    let (dirs, ..) = filled();
    let db = redb::Database::open(dirs.state_file()).unwrap();
    let transaction = db.begin_write().unwrap();
    let table = redb::TableDefinition::<&[u8], &[u8]>::new("policies");
    transaction.open_table(table).unwrap();
    transaction.commit().unwrap();
    drop(db);
    check_refused(dirs.open(), ErrorClass::Unavailable, &["policies", "newer"]);
}
