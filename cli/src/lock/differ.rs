//! In what the world differs from what was locked, in lines.

use std::collections::BTreeSet;

use super::Entry;

/// A line for each difference, the locked side first.
pub fn between(locked: &Entry, now: &Entry) -> Vec<String> {
    let mut lines = Vec::new();
    let version = (&Some(locked.mirrord.clone()), &Some(now.mirrord.clone()));
    for (what, (locked, now)) in [
        ("mirrord", version),
        ("target", (&locked.target, &now.target)),
        ("namespace", (&locked.namespace, &now.namespace)),
        ("container", (&locked.container, &now.container)),
        ("the target's image", (&locked.target_image, &now.target_image)),
        ("image", (&locked.image, &now.image)),
        ("what the image holds", (&locked.image_digest, &now.image_digest)),
    ] {
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        if locked != now {
            lines.push(format!("{what}: locked is {}, there is {}", word(locked), word(now)));
        }
    }
    lines.extend(sets("the target's ports", &locked.ports, &now.ports));
    lines.extend(sets("variables", &locked.variables, &now.variables));
    lines
}

fn sets(what: &str, locked: &BTreeSet<String>, now: &BTreeSet<String>) -> Option<String> {
    let gone = locked.difference(now).map(|name| format!("-{name}"));
    let new = now.difference(locked).map(|name| format!("+{name}"));
    let changed: Vec<String> = gone.chain(new).collect();
    (!changed.is_empty()).then(|| format!("{what}: {}", changed.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_line() {
        let names = |words: &str| words.split(' ').map(str::to_owned).collect();
        let one = Entry {
            mirrord: "0.1.0".to_owned(),
            target_image: Some("sha256:a".to_owned()),
            variables: names("DB TOKEN"),
            ..Entry::default()
        };
        let other = Entry { target_image: None, variables: names("DB URL"), ..one.clone() };
        assert_eq!(
            between(&one, &other),
            ["the target's image: locked is sha256:a, there is none", "variables: -TOKEN +URL"]
        );
        assert!(between(&one, &one.clone()).is_empty());
    }
}
