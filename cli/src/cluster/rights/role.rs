//! The Roles that give what sessions need, as YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Right, Rights};
use crate::cluster::settings::AgentMode;

/// Roles for sessions with targets of all kinds: one for each of the namespaces.
pub fn role_yaml(mode: AgentMode, target_namespace: &str, agent_namespace: &str) -> String {
    let rights = Rights::for_all(mode, target_namespace, agent_namespace);
    let mut namespaces: BTreeMap<&str, Vec<&Right>> = BTreeMap::new();
    for right in &rights {
        namespaces.entry(&right.namespace).or_default().push(right);
    }
    let name = name(mode);
    let roles = namespaces.iter().map(|(namespace, rights)| {
        let mut yaml = format!(
            "# To give it: kubectl -n {namespace} create rolebinding {name} --role {name} --user USER\n\
             apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: Role\n\
             metadata:\n  name: {name}\n  namespace: {namespace}\n\
             rules:\n"
        );
        for (group, resources, verbs) in rules(rights) {
            // Writing to a string does not fail.
            let _ = writeln!(yaml, "- apiGroups: [{group:?}]");
            let _ = writeln!(yaml, "  resources: [{}]", list(&resources));
            let _ = writeln!(yaml, "  verbs: [{}]", list(&verbs));
        }
        yaml
    });
    roles.collect::<Vec<_>>().join("---\n")
}

fn name(mode: AgentMode) -> &'static str {
    match mode {
        AgentMode::Job => "mirrord-job",
        AgentMode::Ephemeral => "mirrord-ephemeral",
    }
}

fn list<T: AsRef<str>>(words: &BTreeSet<T>) -> String {
    words.iter().map(|word| format!("{:?}", word.as_ref())).collect::<Vec<_>>().join(", ")
}

type Rule = (&'static str, BTreeSet<String>, BTreeSet<&'static str>);

/// Resources of one group that have the same verbs are one rule.
fn rules(rights: &[&Right]) -> Vec<Rule> {
    let mut verbs: BTreeMap<(&'static str, String), BTreeSet<&'static str>> = BTreeMap::new();
    for right in rights {
        let resource = match right.subresource {
            Some(subresource) => format!("{}/{subresource}", right.resource),
            None => right.resource.to_owned(),
        };
        verbs.entry((right.group, resource)).or_default().insert(right.verb);
    }
    let mut rules: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for ((group, resource), verbs) in verbs {
        rules.entry((group, verbs)).or_default().insert(resource);
    }
    rules.into_iter().map(|((group, verbs), resources)| (group, resources, verbs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rbac.md");
    const ABOVE: &str = "\
# Permissions in the cluster

A session does everything with the credentials of your kubeconfig, and needs no more than the Role of its mode. The same
Roles, for your namespaces, are printed by

    mirrord doctor -n NAMESPACE --role job       | kubectl apply -f -
    mirrord doctor -n NAMESPACE --role ephemeral | kubectl apply -f -

and `mirrord doctor -n NAMESPACE` says which of the permissions you have. A session that misses one names it before
anything is created. Each Role covers targets of all kinds; the rules that read kinds you do not use can be left out.
";
    const JOB: &str = "\
## Mode job

The agent is a Job whose pod runs on the target's node with hostPID: its namespace must let privileged pods in (pod
security `privileged`). Here the targets are in namespace `shop` and the agents in namespace `agents`; without
`--agent-namespace` both are the same, and so are the Roles.
";
    const EPHEMERAL: &str = "\
## Mode ephemeral

The agent is an ephemeral container in the target's pod.
";
    const BELOW: &str = "\
If the target's image has no shell, `get` on `nodes` (a ClusterRole) lets mirrord look for another image that the node
has; without it, name one with `--agent-image`. If neither namespace nor image is known to a session without a target,
`list` on `pods` of the whole cluster helps to find a node; without it, name an image too.

## Optional

`mirrord ls` lists what it may: `list` on the kinds above. Errors that say which names are there use the same, and
`mirrord doctor --fix` uses `list` and `delete` on `jobs` and `configmaps`.
";

    fn docs() -> String {
        let block = |yaml: String| format!("```yaml\n{yaml}```\n");
        let job = block(role_yaml(AgentMode::Job, "shop", "agents"));
        let ephemeral = block(role_yaml(AgentMode::Ephemeral, "shop", "shop"));
        [ABOVE, JOB, &job, EPHEMERAL, &ephemeral, BELOW].join("\n")
    }

    /// With `MIRRORD_WRITE_DOCS` in the environment the page is written anew.
    #[test]
    fn the_docs_show_the_roles_that_the_code_needs() {
        if std::env::var_os("MIRRORD_WRITE_DOCS").is_some() {
            std::fs::write(DOCS, docs()).expect("written");
        }
        let page = std::fs::read_to_string(DOCS).expect("docs/rbac.md");
        assert_eq!(page, docs(), "run this test with MIRRORD_WRITE_DOCS=1");
    }
}
