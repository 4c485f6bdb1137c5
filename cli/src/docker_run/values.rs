//! Values of the flags that move, checked as docker's client checks them, in its words.

use std::net::IpAddr;

/// Prefixes of the kernel's parameters that docker sets.
const SYSCTLS: &[&str] = &[
    "net.",
    "fs.mqueue.",
    "kernel.msgmax=",
    "kernel.msgmnb=",
    "kernel.msgmni=",
    "kernel.sem=",
    "kernel.shmall=",
    "kernel.shmmax=",
    "kernel.shmmni=",
    "kernel.shm_rmid_forced=",
];

/// Why a value cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// `--dns`.
    #[error("IP address is not correctly formatted: {0}")]
    Address(String),
    /// `--dns-search`.
    #[error("{0} is not a valid domain")]
    Domain(String),
    /// `--add-host` that is no pair.
    #[error("bad format for add-host: {0:?}")]
    AddHost(String),
    /// `--add-host` with something else than an address.
    #[error("invalid IP address in add-host: {0:?}")]
    HostAddress(String),
    /// `--sysctl`.
    #[error("sysctl '{0}' is not allowed")]
    Sysctl(String),
    /// `--link` without a word.
    #[error("empty string specified for links")]
    NoLink,
    /// `--link` with too many.
    #[error("bad format for links: {0}")]
    Link(String),
}

/// A name server.
pub fn dns_server(text: &str) -> Result<String, ValueError> {
    let address = text.trim().parse::<IpAddr>();
    address.map(|address| address.to_string()).map_err(|_| ValueError::Address(text.to_owned()))
}

/// A search domain.
pub fn dns_search(text: &str) -> Result<String, ValueError> {
    let domain = text.trim_matches(' ');
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        bytes.iter().all(inner)
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    let lettered = domain.bytes().any(|byte| byte.is_ascii_alphabetic());
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    match domain == "." || (lettered && domain.len() < 255 && bare.split('.').all(label)) {
        true => Ok(domain.to_owned()),
        false => Err(ValueError::Domain(domain.to_owned())),
    }
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, the address perhaps in brackets.
pub fn add_host(text: &str) -> Result<(String, String), ValueError> {
    let pair = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = pair.filter(|(name, _)| !name.is_empty()) else {
        return Err(ValueError::AddHost(text.to_owned()));
    };
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    match address == "host-gateway" || address.parse::<IpAddr>().is_ok() {
        true => Ok((name.to_owned(), address.to_owned())),
        false => Err(ValueError::HostAddress(address.to_owned())),
    }
}

/// `KEY=VALUE` of a parameter that docker lets a container have.
pub fn sysctl(text: &str) -> Result<(String, String), ValueError> {
    let allowed = SYSCTLS.iter().any(|prefix| text.starts_with(prefix));
    let pair = text.split_once('=').filter(|_| allowed);
    let (key, value) = pair.ok_or_else(|| ValueError::Sysctl(text.to_owned()))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `CONTAINER` or `CONTAINER:ALIAS`.
pub fn link(text: &str) -> Result<String, ValueError> {
    match text.matches(':').count() {
        _ if text.is_empty() => Err(ValueError::NoLink),
        0 | 1 => Ok(text.to_owned()),
        _ => Err(ValueError::Link(text.to_owned())),
    }
}

/// Whether it is a hardware address in one of the usual forms.
pub fn is_mac(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    [(':', 2), ('-', 2), ('.', 4)].into_iter().any(|(separator, digits)| {
        let parts: Vec<&str> = text.split(separator).collect();
        parts.iter().all(|part| hex(part, digits))
            && [6, 8, 20].contains(&(parts.len() * digits / 2))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_have_three_forms() {
        for good in ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "0242.ac11.0002"] {
            assert!(is_mac(good), "{good}");
        }
        for bad in ["", "zz", "02:42:ac:11:00", "0242:ac11:0002", "02:42:ac:11:00:0g"] {
            assert!(!is_mac(bad), "{bad}");
        }
    }

    #[test]
    fn search_domains_are_domains_or_the_root() {
        for good in [".", "a", "a.b-c.d", "corp.test."] {
            assert!(dns_search(good).is_ok(), "{good}");
        }
        for bad in ["", "1", "-a", "a-", "a..b", "a b", "a_b"] {
            assert!(dns_search(bad).is_err(), "{bad}");
        }
    }
}
