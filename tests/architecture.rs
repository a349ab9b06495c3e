//! Guards the layers: imports go down only, and the pure layers do no I/O.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Modules by layer, lowest first; the longest match counts.
const LAYERS: &[(&str, u8)] = &[
    ("model", 0),
    ("object", 1),
    ("ipam", 1),
    ("firewall::model", 1),
    ("firewall", 2),
    ("driver", 2),
    ("plan", 3),
    ("kernel", 4),
    ("kernel::linux", 5),
    ("store", 5),
    ("engine", 6),
    ("http", 7),
    ("docker", 7),
    ("api", 7),
    ("config", 8),
    ("cli", 8),
    ("daemon", 8),
    ("main", 8),
];

/// What the pure layers (0 to 3) must not touch, and the layer 4 beside them only in memory.
const IMPURE: &[&str] = &[
    "tokio",
    "nix",
    "socket2",
    "netlink_sys",
    "rtnetlink",
    "redb",
    "hyper",
    "tracing",
    "std::fs",
    "std::process",
    "std::env",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::thread",
    "std::os",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// `src/kernel/linux/link.rs` is `kernel::linux::link`.
fn module_of(path: &Path, root: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap().with_extension("");
    let parts: Vec<_> =
        relative.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    parts.join("::")
}

fn layer(module: &str) -> Option<u8> {
    let holds = |name: &str| module == name || module.starts_with(&format!("{name}::"));
    LAYERS
        .iter()
        .filter(|(name, _)| holds(name))
        .max_by_key(|(name, _)| name.len())
        .map(|(_, layer)| *layer)
}

/// Collects full paths: of `use` trees and of expressions and types.
#[derive(Default)]
struct Paths {
    found: Vec<String>,
}

impl Paths {
    fn tree(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: String| match prefix {
            "" => name,
            prefix => format!("{prefix}::{name}"),
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&join(path.ident.to_string()), &path.tree),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(prefix, tree));
            }
            syn::UseTree::Name(name) => self.found.push(join(name.ident.to_string())),
            syn::UseTree::Rename(rename) => self.found.push(join(rename.ident.to_string())),
            syn::UseTree::Glob(_) => self.found.push(prefix.to_owned()),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let test = module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
        });
        if !test {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.found.push(parts.join("::"));
        syn::visit::visit_path(self, path);
    }
}

fn paths(source: &Path) -> Vec<String> {
    let file = syn::parse_file(&std::fs::read_to_string(source).unwrap()).unwrap();
    let mut paths = Paths::default();
    paths.visit_file(&file);
    paths.found
}

fn each_module(mut check: impl FnMut(&str, u8, Vec<String>)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for source in sources(&root) {
        let module = module_of(&source, &root);
        if module == "lib" {
            continue;
        }
        let layer = layer(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
        check(&module, layer, paths(&source));
    }
}

#[test]
fn imports_go_down_only() {
    let mut upward = Vec::new();
    let mut seen = 0;
    each_module(|module, own, paths| {
        for path in paths {
            let Some(imported) = path.strip_prefix("crate::") else { continue };
            seen += 1;
            if layer(imported).is_some_and(|layer| layer > own) {
                upward.push(format!("{module} (layer {own}) imports {imported}"));
            }
        }
    });
    assert!(seen > 100, "only {seen} imports were found: is the test looking?");
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn the_pure_layers_do_no_io() {
    let mut impure = Vec::new();
    each_module(|module, layer, paths| {
        if layer > 3 {
            return;
        }
        for path in paths {
            if IMPURE.iter().any(|bad| path == *bad || path.starts_with(&format!("{bad}::"))) {
                impure.push(format!("{module} (layer {layer}) uses {path}"));
            }
        }
    });
    assert!(impure.is_empty(), "{}", impure.join("\n"));
}

#[test]
fn only_the_engine_calls_store_and_kernel() {
    let mut callers = Vec::new();
    each_module(|module, _, paths| {
        let outside = !module.starts_with("engine")
            && !module.starts_with("daemon")
            && !module.starts_with("store")
            && !module.starts_with("kernel");
        let calls = paths
            .iter()
            .any(|path| path.starts_with("crate::store::") || path.starts_with("crate::kernel::"));
        if outside && calls {
            callers.push(module.to_owned());
        }
    });
    assert!(callers.is_empty(), "{callers:?}: only the engine and the daemon that builds it may");
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in ["src", "tests"].iter().flat_map(|folder| sources(&root.join(folder))) {
        let lines = std::fs::read_to_string(&source).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", source.display());
    }
}

/// Where there is no safe wrapper of what the kernel offers.
const UNSAFE: &[&str] = &["kernel::linux::hold::filter", "kernel::linux::hold::relay"];

#[test]
fn unsafe_code_is_where_it_must_be_and_nowhere_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for source in sources(&root) {
        let text = std::fs::read_to_string(&source).unwrap();
        if text.contains("unsafe {") || text.contains("unsafe fn") || text.contains("unsafe impl") {
            found.push(module_of(&source, &root));
        }
    }
    found.sort();
    assert_eq!(found, UNSAFE);
}
