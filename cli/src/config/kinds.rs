//! What a key's value may be.

use super::node::{Content, Node};

/// A kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A string.
    Text,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A whole number, not negative, as Kubernetes can count.
    Count,
    /// A list of strings.
    Texts,
    /// An object whose values are strings.
    TextMap,
    /// A list of ports.
    Ports,
    /// A list of pairs of ports.
    Pairs,
    /// A list of anything.
    List,
    /// An object whose keys are in the table.
    Object,
    /// An object of anything.
    Opaque,
    /// `{"deployment": NAME, "container": NAME}` and the like.
    Workload,
}

/// How a workload is called in an object, and in `TYPE/NAME`.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("pod", "pod"),
    ("deployment", "deployment"),
    ("stateful_set", "statefulset"),
    ("daemon_set", "daemonset"),
    ("replica_set", "replicaset"),
    ("job", "job"),
    ("cron_job", "cronjob"),
    ("service", "service"),
    ("rollout", "rollout"),
];

impl Kind {
    /// The kind in words.
    pub fn words(self) -> String {
        let words = match self {
            Self::Flag => "true or false",
            Self::Text => "a string",
            Self::Choice(choices) => return format!("one of {}", choices.join(", ")),
            Self::Count => "a whole number",
            Self::Texts => "a list of strings",
            Self::TextMap => "an object of strings",
            Self::Ports => "a list of ports",
            Self::Pairs => "a list of [LOCAL, REMOTE] ports",
            Self::List => "a list",
            Self::Object | Self::Opaque => "an object",
            Self::Workload => "an object such as {\"deployment\": NAME}",
        };
        words.to_owned()
    }

    /// Whether it is about whole numbers.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Count | Self::Ports | Self::Pairs)
    }

    /// The first part of a value that is not of this kind.
    fn misfit(self, node: &Node) -> Option<&Node> {
        let unless = |fits: bool| (!fits).then_some(node);
        match self {
            Self::Flag => unless(node.flag().is_some()),
            Self::Text => unless(node.text().is_some()),
            Self::Choice(choices) => {
                unless(node.text().is_some_and(|text| choices.contains(&text)))
            }
            Self::Count => unless(node.count().is_some_and(|count| i32::try_from(count).is_ok())),
            Self::Texts => list(node, |item| item.text().is_some()),
            Self::Ports => list(node, |item| item.port().is_some()),
            Self::Pairs => list(node, |item| pair(item).is_some()),
            Self::List => unless(matches!(node.content, Content::List(_))),
            Self::Object | Self::Opaque => unless(matches!(node.content, Content::Object(_))),
            Self::TextMap => match node.content {
                Content::Object(_) => {
                    let mut values = node.entries().iter().map(|entry| &entry.value);
                    values.find(|value| value.text().is_none())
                }
                _ => Some(node),
            },
            Self::Workload => unless(workload(node).is_some()),
        }
    }
}

/// The part of a value that is of none of the kinds.
pub fn misfit<'a>(kinds: &[Kind], node: &'a Node) -> Option<&'a Node> {
    let misfits: Option<Vec<&Node>> = kinds.iter().map(|kind| kind.misfit(node)).collect();
    // The deepest one is of the kind that was meant.
    misfits?.into_iter().max_by_key(|misfit| misfit.at)
}

fn list(node: &Node, fits: impl Fn(&Node) -> bool) -> Option<&Node> {
    match &node.content {
        Content::List(items) => items.iter().find(|item| !fits(item)),
        _ => Some(node),
    }
}

/// Two ports.
pub fn pair(node: &Node) -> Option<(u16, u16)> {
    match node.items() {
        [local, remote] => local.port().zip(remote.port()),
        _ => None,
    }
}

/// `TYPE/NAME` of an object that names a workload.
pub fn workload(node: &Node) -> Option<String> {
    let mut named = None;
    let mut container = None;
    for entry in node.entries() {
        let value = entry.value.text()?;
        match WORKLOADS.iter().find(|(key, _)| *key == entry.key) {
            Some((_, kind)) if named.is_none() => named = Some(format!("{kind}/{value}")),
            None if entry.key == "container" && container.is_none() => container = Some(value),
            _ => return None,
        }
    }
    let named = named?;
    Some(match container {
        Some(container) => format!("{named}/container/{container}"),
        None => named,
    })
}
