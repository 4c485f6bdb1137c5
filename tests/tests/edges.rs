//! Crate edges are the architecture: only those that ARCHITECTURE.md lists exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows ``| `crate` | `crate`, `crate` | … |`` below the heading "Edges".
fn listed() -> Result<BTreeSet<(String, String)>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let section = text.split("## Edges").nth(1).context("no section \"Edges\"")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut edges = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').skip(1);
        let names = |cell: Option<&str>| -> Vec<String> {
            cell.unwrap_or("").split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let from = names(cells.next());
        for to in names(cells.next()) {
            edges.insert((from[0].clone(), to));
        }
    }
    Ok(edges)
}

fn packages() -> Result<Vec<Value>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    metadata["packages"].as_array().cloned().context("no packages")
}

#[test]
fn only_the_edges_that_the_architecture_lists_exist() -> Result<()> {
    let packages = packages()?;
    let ours: BTreeSet<&str> =
        packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut found = BTreeSet::new();
    for package in &packages {
        let from = package["name"].as_str().context("no name")?;
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            if let Some(to) = dependency["name"].as_str().filter(|name| ours.contains(name)) {
                found.insert((from.to_owned(), to.to_owned()));
            }
        }
    }
    let listed = listed()?;
    let unlisted: Vec<_> = found.difference(&listed).collect();
    ensure!(unlisted.is_empty(), "ARCHITECTURE.md does not list {unlisted:?}");
    let unused: Vec<_> = listed.difference(&found).collect();
    ensure!(unused.is_empty(), "ARCHITECTURE.md lists what does not exist: {unused:?}");
    Ok(())
}

#[test]
fn unsafe_code_is_forbidden_outside_netns_the_layer_and_the_starters_system_calls() -> Result<()> {
    for package in packages()? {
        let name = package["name"].as_str().context("no name")?;
        for target in package["targets"].as_array().context("no targets")? {
            let kind = target["kind"][0].as_str().unwrap_or("");
            let is_free = matches!(name, "mirrord-netns" | "mirrord-layer");
            if is_free || !matches!(kind, "lib" | "bin") {
                continue;
            }
            let source = target["src_path"].as_str().context("no source")?;
            let text = std::fs::read_to_string(source)?;
            let denied = name == "mirrord-starter" && text.contains("#![deny(unsafe_code)]");
            ensure!(
                denied || text.contains("#![forbid(unsafe_code)]"),
                "{source} does not forbid unsafe code"
            );
        }
    }
    let allowing: Vec<_> = std::fs::read_dir(root().join("starter/src"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|it| it.contains("allow(unsafe")))
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .collect();
    ensure!(allowing == ["sys.rs"], "unsafe code is allowed in {allowing:?}");
    Ok(())
}
