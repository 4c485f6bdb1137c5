//! One library for every libc: what it needs is in all of them.

#[allow(dead_code)]
#[path = "../../cli/build/frida.rs"]
mod frida;
#[path = "../../cli/build/layer.rs"]
mod layer;
#[path = "common/library.rs"]
mod library;
#[path = "../../cli/build/nested.rs"]
mod nested;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use mirrord_layer::table::SYMBOLS;

/// Where its loader is: its libc as well.
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";
/// The most that it may have.
const MOST_BYTES: u64 = 500 << 10;

fn symbols(file: &Path, which: &str) -> Vec<String> {
    let nm = Command::new("nm").args(["-D", which]).arg(file).output().expect("nm");
    assert!(nm.status.success(), "nm {}: {nm:?}", file.display());
    let text = String::from_utf8(nm.stdout).expect("text");
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// Names alone, of those that a library has.
fn defined(file: &Path) -> BTreeSet<String> {
    let names = symbols(file, "--defined-only").into_iter();
    names.filter_map(|name| name.split('@').next().map(str::to_owned)).collect()
}

fn readelf(file: &Path, what: &str) -> String {
    let readelf = Command::new("readelf").args(["-W", what]).arg(file).output().expect("readelf");
    assert!(readelf.status.success());
    String::from_utf8(readelf.stdout).expect("text")
}

#[test]
fn every_undefined_symbol_is_in_glibc_and_in_musl() {
    let undefined = symbols(library::library(), "--undefined-only");
    assert!(!undefined.is_empty());
    let mut glibc = BTreeSet::new();
    for name in ["libc.so.6", "libdl.so.2"] {
        glibc.extend(defined(&library::machines(name)));
    }
    let musl = Path::new(MUSL);
    let musl = if musl.exists() {
        Some(defined(musl))
    } else {
        assert!(std::env::var_os("CI").is_none(), "{MUSL} is missing: install musl");
        eprintln!("SKIPPED: {MUSL} is missing: install musl");
        None
    };
    for name in &undefined {
        assert!(glibc.contains(name), "{name} is not in glibc");
        assert!(musl.as_ref().is_none_or(|musl| musl.contains(name)), "{name} is not in musl");
    }
}

#[test]
fn no_symbol_wants_a_version() {
    let library = library::library();
    let names = symbols(library, "--undefined-only");
    assert!(names.iter().all(|name| !name.contains('@')), "{names:?}");
    assert!(!readelf(library, "-V").contains("GLIBC"), "{}", readelf(library, "-V"));
}

#[test]
fn it_needs_two_libraries_that_both_libcs_have() {
    let dynamic = readelf(library::library(), "-d");
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert_eq!(needed, ["libc.so.6", "libdl.so.2"]);
}

#[test]
fn it_is_small() {
    let bytes = library::library().metadata().expect("a file").len();
    assert!(bytes <= MOST_BYTES, "{bytes}");
}

#[test]
fn what_is_exported_are_the_rows_of_the_table() {
    let exported = defined(library::library());
    let rows: BTreeSet<String> = SYMBOLS.iter().map(ToString::to_string).collect();
    assert_eq!(rows.len(), SYMBOLS.len(), "a row stands twice in the table");
    assert_eq!(exported, rows);
}

#[test]
fn a_build_with_gum_says_which_part_of_it_is_missing() {
    let nothing = frida::devkit(None).expect_err("none is named");
    assert!(nothing.contains("let MIRRORD_FRIDA_DEVKIT name a folder"), "{nothing}");
    let folder = tempfile::tempdir().expect("a folder");
    let devkit = || frida::devkit(Some(folder.path().into()));
    let library = devkit().expect_err("it is empty");
    assert!(library.ends_with("which has no libfrida-gum.a"), "{library}");
    fs::write(folder.path().join("libfrida-gum.a"), "").expect("written");
    let header = devkit().expect_err("half of it");
    assert!(header.ends_with("which has no frida-gum.h"), "{header}");
    fs::write(folder.path().join("frida-gum.h"), "").expect("written");
    assert!(devkit().expect("whole").is_some());
}
