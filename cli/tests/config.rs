//! The configuration file, as the program reads it: exit code, standard output and standard error.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use insta::assert_snapshot;
use tempfile::TempDir;

/// A working folder with files in it.
struct Folder(TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("written");
        }
        Self(folder)
    }

    /// Runs `mirrord` with the words of a line, and tells all that can be seen of it.
    fn told(&self, variables: &[(&str, &str)], line: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_mirrord"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env_clear()
            .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
            .envs(variables.iter().copied())
            .output()
            .expect("mirrord starts");
        let mut told = format!("exit {}\n", output.status.code().unwrap_or(-1));
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                let _ = write!(told, "--- {name}\n{}", String::from_utf8_lossy(&bytes));
            }
        }
        told
    }
}

/// The word that a target's error names.
fn target(told: &str) -> &str {
    told.split("the target \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(told)
}

#[test]
fn a_target_is_the_options_then_the_variables_then_the_files() {
    let folder = Folder::with(&[(".mirrord/mirrord.json", "{\"target\": \"file/\"}")]);
    let variable = [("MIRRORD_TARGET", "variable/")];
    assert_eq!(target(&folder.told(&variable, "-t option/ docker run img")), "option/");
    let before = "-t option/ container --steal -- docker run img";
    assert_eq!(target(&folder.told(&variable, before)), "option/");
    assert_eq!(target(&folder.told(&variable, "docker run img")), "variable/");
    assert_eq!(target(&folder.told(&[("MIRRORD_TARGET", "")], "docker run img")), "file/");
    assert_eq!(target(&folder.told(&[], "docker run img")), "file/");
}

#[test]
fn a_file_is_the_options_then_the_variables_then_the_folders() {
    let folder = Folder::with(&[
        ("option.toml", "target = 'option/'"),
        ("variable.yaml", "target: variable/"),
        (".mirrord/mirrord.yml", "target: yml/"),
    ]);
    let variable = [("MIRRORD_CONFIG_FILE", "variable.yaml")];
    assert_eq!(target(&folder.told(&variable, "-f option.toml docker run img")), "option/");
    assert_eq!(target(&folder.told(&variable, "docker run img")), "variable/");
    assert_eq!(target(&folder.told(&[("MIRRORD_CONFIG_FILE", "")], "docker run img")), "yml/");
    let behind = "container -f option.toml -- docker run img";
    assert_eq!(target(&folder.told(&[], behind)), "option/");
    for (name, expected) in [("toml", "yml/"), ("yaml", "yaml/"), ("json", "json/")] {
        let content = match name {
            "json" => "{\"target\": \"json/\"}".to_owned(),
            "yaml" => "target: yaml/".to_owned(),
            name => format!("target = '{name}/'"),
        };
        fs::write(folder.0.path().join(format!(".mirrord/mirrord.{name}")), content)
            .expect("written");
        assert_eq!(target(&folder.told(&[], "docker run img")), expected);
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    assert_snapshot!(Folder::with(&[]).told(&[], "-f nothing.json docker run img"), @r"
    exit 125
    --- stderr
    mirrord: error: there is no configuration file nothing.json
    hint: give -f, or MIRRORD_CONFIG_FILE, a file that exists
    ");
}

#[test]
fn a_wrong_key_starts_nothing() {
    let folder = Folder::with(&[("a.yaml", "feature:\n  netwrok: true\n")]);
    assert_snapshot!(folder.told(&[], "-f a.yaml docker run img"), @r"
    exit 125
    --- stderr
    mirrord: error: a.yaml:2:3: there is no key feature.netwrok
    hint: did you mean feature.network?
    ");
}

#[test]
fn what_does_nothing_is_one_warning() {
    let file = "{\"target\": \"container/a\", \"operator\": true, \"telemetry\": false}";
    let folder = Folder::with(&[("a.json", file)]);
    assert_snapshot!(folder.told(&[], "-f a.json docker run img"), @r"
    exit 125
    --- stderr
    mirrord: warning: a.json: operator and telemetry do nothing here
    mirrord: error: there is no docker command in PATH
    hint: install the Docker client, or add its folder to PATH
    ");
}

#[test]
fn a_verdict_is_data() {
    let folder = Folder::with(&[
        ("good.toml", "target = '{{ get_env(name=\"T\") }}'"),
        ("bad.json", "{\"target\": 1}"),
    ]);
    assert_snapshot!(folder.told(&[("T", "deploy/a")], "verify-config good.toml"), @r#"
    exit 0
    --- stdout
    {
      "type": "Success",
      "config": {
        "path": "deployment/a",
        "namespace": null
      },
      "warnings": []
    }
    "#);
    assert_snapshot!(folder.told(&[], "verify-config bad.json"), @r#"
    exit 1
    --- stdout
    {
      "type": "Fail",
      "errors": [
        "bad.json:1:12: target must be a string, or an object; here is a number"
      ]
    }
    "#);
}
