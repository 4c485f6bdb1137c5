//! Which of the target's variables the app gets, and how docker is given them.

use std::collections::HashSet;
use std::fmt;

/// Variables that describe the target's machine and runtime, not its service.
const DROPPED: &[&str] = &[
    "PATH",
    "HOME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "HOSTNAME",
    "TERM",
    "HOMEPATH",
    "CLASSPATH",
    "JAVA_HOME",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JAVA_EXE",
    "CATALINA_HOME",
    "PYTHONPATH",
    "RUBYLIB",
    "RUBYOPT",
    "GEM_*",
    "BUNDLE*",
    "GOPATH",
    "GOMODCACHE",
    "DOTNET_*",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "RUST_LOG",
    "MIRRORD_*",
];

/// Variables that describe who sits before a machine, which a process there needs as they are.
const DESK: &[&str] = &[
    "SHELL",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TMPDIR",
    "TZ",
    "SSH_*",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XDG_*",
    "DBUS_*",
    "EDITOR",
    "PAGER",
    "LS_COLORS",
    "COLORTERM",
    "NODE_PATH",
    "VIRTUAL_ENV",
    "SSL_CERT_*",
    "LD_*",
    "GLIBC_TUNABLES",
    "ASAN_OPTIONS",
    "TSAN_OPTIONS",
];

/// Variables that change what the docker client does, so that they never enter its environment.
const CLIENTS_OWN: &[&str] = &[
    "DOCKER_*",
    "BUILDKIT_*",
    "BUILDX_*",
    "COMPOSE_*",
    "MOBY_*",
    "CONTAINER*",
    "REGISTRY_*",
    "NERDCTL_*",
    "STORAGE_*",
    "LD_*",
    "GO*",
    "SSL_*",
    "SSH_*",
    "XDG_*",
    "OTEL_*",
    "DBUS_*",
    "GPG_*",
    "GNUPGHOME",
    "*_PROXY",
    "*_proxy",
    "LC_*",
    "LANG",
    "LANGUAGE",
    "PATH",
    "HOME",
    "TMPDIR",
    "TERM",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "ENV",
    "BASH*",
    "IFS",
    "NO_COLOR",
    "CLICOLOR*",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "MALLOC_*",
    "HOSTALIASES",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "NLSPATH",
    "LOCPATH",
    "TZ",
    "TZDIR",
    "WSL*",
    "PYTHON*",
    "MIRRORD_*",
];

/// The longest line of an env-file that docker reads.
const LONGEST_LINE: usize = 60 * 1024;
/// The longest `NAME=VALUE` that the kernel lets into an environment.
const LONGEST_VARIABLE: usize = 128 * 1024 - 2;

/// Which variables are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvRules {
    off: bool,
    include: Option<Vec<String>>,
    exclude: Vec<String>,
    overrides: Overrides,
}

/// Variables that stand above the target's.
#[derive(Clone, Default, PartialEq, Eq)]
struct Overrides(Vec<(String, String)>);

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, _)| (name, "…"))).finish()
    }
}

/// The target's variables, by the way that each takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The content of an env-file.
    pub file: String,
    /// Variables for the docker client's own environment, named by `-e NAME`.
    pub by_name: Vec<(String, String)>,
    /// Variables that cannot be delivered, each with the reason.
    pub undelivered: Vec<(String, &'static str)>,
    /// The names of those that it gets.
    delivered: Vec<String>,
}

impl Delivery {
    /// The names of the variables that the app gets.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.delivered.iter()
    }
}

impl EnvRules {
    /// Rules from the options; lists are separated by `;`.
    pub fn new(off: bool, include: Option<&str>, exclude: Option<&str>) -> Self {
        let split = |list: &str| -> Vec<String> {
            let names = list.split(';').map(str::trim).filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        Self {
            off,
            include: include.map(split),
            exclude: exclude.map(split).unwrap_or_default(),
            overrides: Overrides::default(),
        }
    }

    /// Adds variables that the app gets, whatever the target and the rules say.
    pub fn with_overrides(mut self, overrides: Vec<(String, String)>) -> Self {
        self.overrides = Overrides(overrides);
        self
    }

    /// Whether the target's variables are wanted at all.
    pub fn wanted(&self) -> bool {
        !self.off
    }

    fn takes(&self, name: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|pattern| like(pattern, name));
        let dropped = DROPPED.iter().any(|pattern| like(pattern, name));
        let by_its_name =
            self.include.as_ref().is_some_and(|list| list.iter().any(|pattern| pattern == name));
        let included = self.include.as_deref().is_none_or(named);
        !self.off && included && (!dropped || by_its_name) && !named(&self.exclude)
    }

    /// The variables that a process of this machine gets above its own: the target's, but for what
    /// describes the user and their desk.
    pub fn variables(&self, target: Vec<(String, String)>) -> Vec<(String, String)> {
        let Overrides(overrides) = &self.overrides;
        let at_the_desk = |name: &str| DESK.iter().any(|pattern| like(pattern, name));
        let asked = |name: &str| {
            self.include.as_ref().is_some_and(|list| list.iter().any(|pattern| pattern == name))
        };
        let taken = target
            .into_iter()
            .filter(|(name, _)| self.takes(name) && (!at_the_desk(name) || asked(name)));
        // What the kernel and the C library take for a variable (environ(7)).
        let sound = |(name, value): &(String, String)| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        taken.chain(overrides.iter().cloned()).filter(sound).collect()
    }

    /// The variables that a container gets from somebody who can hand on any value.
    pub fn for_container(&self, target: Vec<(String, String)>) -> Vec<(String, String)> {
        let Overrides(overrides) = &self.overrides;
        let overridden = |name: &str| overrides.iter().any(|(other, _)| other == name);
        let taken = target.into_iter().filter(|(name, _)| self.takes(name) && !overridden(name));
        taken.chain(overrides.iter().cloned()).filter(|(name, _)| !name.is_empty()).collect()
    }

    /// Sorts the target's variables; those that the user sets are the user's.
    pub fn deliver(&self, remote: Vec<(String, String)>, users: &HashSet<String>) -> Delivery {
        let mut delivery = Delivery::default();
        let Overrides(overrides) = &self.overrides;
        let overridden = |name: &str| overrides.iter().any(|(other, _)| other == name);
        let taken = remote.into_iter().filter(|(name, _)| self.takes(name) && !overridden(name));
        for (name, value) in taken.chain(overrides.iter().cloned()) {
            if name.is_empty() || users.contains(&name) {
                continue;
            }
            if fits_a_file(&name, &value) {
                delivery.file.push_str(&format!("{name}={value}\n"));
                delivery.delivered.push(name);
            } else if name.contains('\n') {
                delivery.undelivered.push((name, "its name has several lines"));
            } else if CLIENTS_OWN.iter().any(|pattern| like(pattern, &name)) {
                let reason = "its value has several lines, and docker itself would obey it";
                delivery.undelivered.push((name, reason));
            } else if name.len() + 1 + value.len() > LONGEST_VARIABLE {
                delivery.undelivered.push((name, "its value is too long"));
            } else {
                delivery.delivered.push(name.clone());
                delivery.by_name.push((name, value));
            }
        }
        delivery
    }
}

/// Whether a line of an env-file carries the variable unchanged.
fn fits_a_file(name: &str, value: &str) -> bool {
    !name.starts_with('#')
        && !name.contains(char::is_whitespace)
        && !value.contains('\n')
        && !value.ends_with('\r')
        && name.len() + 1 + value.len() <= LONGEST_LINE
}

/// Whether `name` matches a pattern with `*` and `?`.
fn like(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut in_name) = (0, 0);
    let mut star = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    in_name = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(rules: &EnvRules, names: &[&str]) -> Vec<String> {
        let remote = names.iter().map(|name| ((*name).to_owned(), "v".to_owned())).collect();
        let users = HashSet::from(["MINE".to_owned()]);
        let file = rules.deliver(remote, &users).file;
        file.lines().filter_map(|line| line.strip_suffix("=v")).map(str::to_owned).collect()
    }

    const ALL: &[&str] = &["PATH", "HOME", "A", "AB", "DB_URL", "MINE", "GEM_HOME", "DOTNET_X"];

    #[test]
    fn what_describes_the_machine_is_dropped_and_the_users_own_stays() {
        assert_eq!(deliver(&EnvRules::new(false, None, None), ALL), ["A", "AB", "DB_URL"]);
        assert!(deliver(&EnvRules::new(true, None, None), ALL).is_empty());
    }

    #[test]
    fn include_and_exclude_take_wildcards() {
        assert_eq!(deliver(&EnvRules::new(false, Some("A*"), None), ALL), ["A", "AB"]);
        assert_eq!(deliver(&EnvRules::new(false, Some("A?; DB_*"), None), ALL), ["AB", "DB_URL"]);
        assert_eq!(deliver(&EnvRules::new(false, None, Some("A*;X")), ALL), ["DB_URL"]);
        assert_eq!(deliver(&EnvRules::new(false, Some("PATH;A"), None), ALL), ["PATH", "A"]);
        assert_eq!(deliver(&EnvRules::new(false, Some("*"), None), ALL), ["A", "AB", "DB_URL"]);
    }

    #[test]
    fn overrides_stand_above_the_target_and_below_the_user() {
        let overrides = [("A", "new"), ("PATH", "/x"), ("MINE", "no")];
        let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let rules = EnvRules::new(false, None, Some("A")).with_overrides(overrides.to_vec());
        let remote = [("A", "old"), ("B", "b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let users = HashSet::from(["MINE".to_owned()]);
        assert_eq!(rules.deliver(remote.to_vec(), &users).file, "B=b\nA=new\nPATH=/x\n");
        let none = EnvRules::new(true, None, None).with_overrides(overrides.to_vec());
        assert_eq!(none.deliver(Vec::new(), &users).file, "A=new\nPATH=/x\n");
        let shown = format!("{rules:?}");
        assert!(shown.contains("PATH") && !shown.contains("/x"), "{shown}");
    }

    #[test]
    fn several_lines_travel_by_name_and_never_into_dockers_own_variables() {
        let remote = [
            ("KEY", "a\nb"),
            ("DOCKER_HOST", "a\nb"),
            ("HTTP_PROXY", "p"),
            ("CR", "x\r"),
            ("A B", "v"),
        ];
        let remote = remote.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let delivery = EnvRules::new(false, None, None).deliver(remote, &HashSet::new());
        assert_eq!(delivery.file, "HTTP_PROXY=p\n");
        let by_name: Vec<_> = delivery.by_name.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(by_name, ["KEY", "CR", "A B"]);
        assert_eq!(delivery.undelivered.len(), 1);
        assert_eq!(delivery.undelivered[0].0, "DOCKER_HOST");
    }

    #[test]
    fn long_values_take_the_way_that_carries_them() {
        let long = |length| vec![("A".to_owned(), "x".repeat(length))];
        let rules = EnvRules::new(false, None, None);
        assert_eq!(rules.deliver(long(61 * 1024), &HashSet::new()).by_name.len(), 1);
        assert_eq!(rules.deliver(long(129 * 1024), &HashSet::new()).undelivered.len(), 1);
    }

    #[test]
    fn a_process_keeps_what_describes_its_user() {
        let remote = [("A", "1"), ("USER", "svc"), ("LC_ALL", "C"), ("PATH", "/x"), ("", "x")];
        let remote = remote.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let names = |rules: EnvRules| -> Vec<String> {
            rules.variables(remote.clone()).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(EnvRules::new(false, None, None)), ["A"]);
        assert_eq!(names(EnvRules::new(false, Some("USER;A"), None)), ["A", "USER"]);
        assert!(names(EnvRules::new(true, None, None)).is_empty());
    }

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "A", false),
            ("A*B*C", "AxxBxC", true),
            ("A*B", "AxxBx", false),
            ("*_PROXY", "HTTP_PROXY", true),
            ("?", "AB", false),
            ("**A", "BA", true),
        ] {
            assert_eq!(like(pattern, name), expected, "{pattern} {name}");
        }
    }
}
