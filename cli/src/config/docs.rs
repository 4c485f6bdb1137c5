//! The page of the docs and the schema, from the tables of keys, options and variables. With
//! `UPDATE_DOCS=1` the tests write them.

use std::fmt::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use serde_json::{Map, Value, json};

use super::DEFAULT_FILES;
use super::keys::{KEYS, Key, Status};
use super::kinds::{Kind, WORKLOADS};
use crate::args::Cli;
use crate::settings::ENVIRONMENT;

const INTRODUCTION: &str = "\
# Configuration

Generated from the code: `UPDATE_DOCS=1 cargo test -p mirrord docs`.

An option stands above a variable of the environment, a variable above the file, the file above
the default. The file is named by `-f` or `MIRRORD_CONFIG_FILE`; without them it is the first of
";

const TEMPLATES: &str = "
JSON may have comments and trailing commas. In all three formats
`{{ get_env(name=\"NAME\", default=\"value\") }}` stands for a variable of the environment, filled in
before the file is read. `mirrord verify-config FILE` says what is wrong with a file, and editors
do with [its schema](mirrord-schema.json).

Keys have the names that they have in MetalBear's mirrord, so that a file of its users can be used
here; the two programs share no code. A key that is not in these tables is an error. One that is known and does nothing here is named in
a warning.
";

fn words(kinds: &[Kind]) -> String {
    let words: Vec<String> = kinds.iter().map(|kind| kind.words()).collect();
    words.join(", or ").replace('|', "\\|")
}

fn options() -> String {
    let mut page = "\n## Options\n\n| option | variable | meaning |\n|---|---|---|\n".to_owned();
    let command = Cli::command();
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        let Some(long) = option.get_long() else { continue };
        let short = option.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let takes = option.get_action().takes_values();
        let value =
            option.get_value_names().filter(|_| takes).map(|names| format!(" {}", names[0]));
        let same = option.get_short().map(|short| format!("as -{short}")).unwrap_or_default();
        let variable =
            ENVIRONMENT.iter().find(|(_, what)| !same.is_empty() && what.ends_with(&same));
        let variable = variable.map(|(name, _)| format!("`{name}`"));
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(
            page,
            "| {short}`--{long}{}` | {} | {} |",
            value.unwrap_or_default(),
            variable.unwrap_or_default(),
            help.replace('\n', " ").replace('|', "\\|")
        );
    }
    page
}

fn variables() -> String {
    let mut page = "\n## Environment\n\n| variable | meaning |\n|---|---|\n".to_owned();
    for (name, what) in ENVIRONMENT {
        let _ = writeln!(page, "| `{name}` | {what} |");
    }
    page
}

fn page() -> String {
    let files: Vec<String> = DEFAULT_FILES.iter().map(|file| format!("`{file}`")).collect();
    let mut page = format!("{INTRODUCTION}{} that is there.\n{TEMPLATES}", files.join(", "));
    page += "\n## Keys\n\n| key | value | above it | default | meaning |\n|---|---|---|---|---|\n";
    for key in KEYS.iter().filter(|key| key.status == Status::Done) {
        let Key { path, above, default, what, .. } = key;
        let _ =
            writeln!(page, "| `{path}` | {} | {above} | {default} | {what} |", words(key.kinds));
    }
    page += "\n## Keys that do nothing here\n\n| key | value | without a warning | what it is about |\n|---|---|---|---|\n";
    for key in KEYS {
        if let Status::Undone(anyway) = key.status {
            let anyway: Vec<String> = anyway.iter().map(|value| format!("`{value}`")).collect();
            let (kinds, anyway) = (words(key.kinds), anyway.join(", "));
            let _ = writeln!(page, "| `{}` | {kinds} | {anyway} | {} |", key.path, key.what);
        }
    }
    page + &options() + &variables()
}

fn schema() -> Value {
    let mut schema = object("");
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("mirrord's configuration file");
    schema
}

fn object(parent: &str) -> Value {
    let children = KEYS.iter().filter(|key| key.parent() == parent);
    let properties: Map<String, Value> =
        children.map(|key| (key.name().to_owned(), property(key))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn property(key: &Key) -> Value {
    let mut kinds: Vec<Value> = key.kinds.iter().map(|kind| kind_schema(*kind, key.path)).collect();
    kinds.push(json!({"type": "null"}));
    let does = match key.status {
        Status::Done => "",
        Status::Undone(_) => "Does nothing here: ",
    };
    json!({"description": format!("{does}{}", key.what), "anyOf": kinds})
}

fn kind_schema(kind: Kind, path: &str) -> Value {
    let port = json!({"type": "integer", "minimum": 1, "maximum": 65535});
    match kind {
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Text => json!({"type": "string"}),
        Kind::Choice(choices) => json!({"enum": choices}),
        Kind::Count => json!({"type": "integer", "minimum": 0, "maximum": i32::MAX}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::TextMap => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Ports => json!({"type": "array", "items": port}),
        Kind::Pairs => json!({
            "type": "array",
            "items": {"type": "array", "items": port, "minItems": 2, "maxItems": 2},
        }),
        Kind::List => json!({"type": "array"}),
        Kind::Object => object(path),
        Kind::Opaque => json!({"type": "object"}),
        Kind::Workload => {
            let names = WORKLOADS.iter().map(|(key, _)| *key).chain(["container"]);
            let properties: Map<String, Value> =
                names.map(|name| (name.to_owned(), json!({"type": "string"}))).collect();
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
    }
}

/// Compares a file of the docs with what the code says, or writes it.
fn hold(name: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/{name} is out of date: UPDATE_DOCS=1 cargo test -p mirrord docs"
    );
}

#[test]
fn the_page_of_the_docs_is_up_to_date() {
    hold("configuration.md", &page());
}

#[test]
fn the_schema_is_up_to_date() {
    hold("mirrord-schema.json", &format!("{:#}\n", schema()));
}

#[test]
fn every_option_that_the_table_names_exists() {
    let command = Cli::command();
    for key in KEYS {
        for word in key.above.split('`').filter(|word| word.starts_with("--")) {
            let there = command.get_arguments().any(|option| option.get_long() == Some(&word[2..]));
            assert!(there, "{}: {word}", key.path);
        }
    }
}
