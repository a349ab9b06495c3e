//! What the README says of the code is what the code says.

#[test]
#[expect(clippy::disallowed_methods, reason = "asks the real binary")]
fn the_option_table_is_the_one_that_help_prints() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_netagent"))
        .args(["help", "driver", "bridge", "--markdown"])
        .output()
        .unwrap();
    let table = String::from_utf8(help.stdout).unwrap();
    assert!(table.contains("com.docker.network.driver.mtu"), "{table}");
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let shown = readme
        .split_once("held to it by a test -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- end of options -->"))
        .map(|(table, _)| table);
    assert_eq!(shown, Some(table.as_str()), "paste `netagent help driver bridge --markdown`");
}
