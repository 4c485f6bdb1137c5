//! Loading the embedded BPF objects.
//!
//! aya parses the objects and holds their maps, but its own loader would first read and parse the
//! kernel's whole type information, which these programs do not need: 5 MB and most of the time
//! that a sidecar's set-up takes.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{Map, MapData, MapError};
use aya_obj::{
    Object as Code, ParseError, generated::bpf_map_type, relocation::EbpfRelocationError,
};

mod sys;

pub(crate) use sys::SOCKET_FILTER;
pub(crate) use sys::{Kind, SK_LOOKUP};

/// How much of the verifier's words is kept.
const LOG: usize = 64 * 1024;

/// Why a program could not be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The embedded object is broken.
    #[error("cannot parse the embedded BPF object")]
    Parse(#[source] ParseError),
    /// The embedded object lacks a part.
    #[error("the embedded BPF object has no {0}")]
    Missing(&'static str),
    /// Its references to maps could not be resolved.
    #[error("cannot link the embedded BPF object")]
    Link(#[source] EbpfRelocationError),
    /// A map could not be made or changed.
    #[error("cannot use the BPF map {map}")]
    Map {
        /// The map's name.
        map: String,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// The kernel does not take the program.
    #[error("cannot load the BPF program{}{log}", if .log.is_empty() { "" } else { ": " })]
    Load {
        /// The verifier's last words.
        log: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program could not be attached.
    #[error("cannot attach the BPF program")]
    Attach(#[source] io::Error),
}

impl BpfError {
    /// Whether the kernel does not let this process use BPF at all.
    pub(crate) fn is_forbidden(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.raw_os_error() == Some(libc::EPERM);
            }
            cause = error.source();
        }
        false
    }
}

/// An object whose maps exist.
#[derive(Debug)]
pub(crate) struct Object {
    code: Code,
    maps: HashMap<String, Map>,
}

impl Object {
    /// Makes the object's maps and links its code to them.
    pub(crate) fn load(bytes: &[u8]) -> Result<Self, BpfError> {
        let mut code = Code::parse(bytes).map_err(BpfError::Parse)?;
        let parsed: Vec<_> = code.maps.drain().collect();
        let mut maps = HashMap::new();
        let mut links = Vec::new();
        for (name, definition) in &parsed {
            let data = create_map(name, definition).map_err(|source| map_error(name, source))?;
            links.push((name.as_str(), data.fd().as_fd().as_raw_fd(), definition));
            maps.insert(name.clone(), typed(data, definition));
        }
        let sections: HashSet<_> = code.functions.keys().map(|(section, _)| *section).collect();
        code.relocate_maps(links.into_iter(), &sections).map_err(BpfError::Link)?;
        code.relocate_calls(&sections).map_err(BpfError::Link)?;
        Ok(Self { code, maps })
    }

    /// One of the maps.
    pub(crate) fn map(&mut self, name: &'static str) -> Result<&mut Map, BpfError> {
        self.maps.get_mut(name).ok_or(BpfError::Missing(name))
    }

    /// Loads one of the programs.
    pub(crate) fn program(&self, name: &'static str, kind: Kind) -> Result<OwnedFd, BpfError> {
        let program = self.code.programs.get(name).ok_or(BpfError::Missing(name))?;
        let function = self.code.functions.get(&program.function_key());
        let function = function.ok_or(BpfError::Missing(name))?;
        let license = CString::from(program.license.as_c_str());
        let load = |log: &mut [u8]| sys::load_program(kind, &function.instructions, &license, log);
        load(&mut []).map_err(|source| {
            let mut log = vec![0; LOG];
            drop(load(&mut log));
            BpfError::Load { log: last_words(&log), source }
        })
    }
}

/// Attaches a program to what `target` stands for, until the link is closed.
pub(crate) fn attach(
    kind: Kind,
    program: &OwnedFd,
    target: impl AsFd,
) -> Result<OwnedFd, BpfError> {
    sys::create_link(kind, program.as_fd(), target).map_err(BpfError::Attach)
}

/// An error of a map that is known by name.
pub(crate) fn map_error(map: &str, source: MapError) -> BpfError {
    BpfError::Map { map: map.to_owned(), source: Box::new(source) }
}

/// A map without type information, which the kernel would have to be given first.
fn create_map(name: &str, map: &aya_obj::Map) -> Result<MapData, MapError> {
    let plain = aya_obj::Map::new_from_params(
        map.map_type(),
        map.key_size(),
        map.value_size(),
        map.max_entries(),
        map.map_flags(),
    );
    MapData::create(plain, name, None)
}

fn typed(data: MapData, definition: &aya_obj::Map) -> Map {
    match bpf_map_type::try_from(definition.map_type()) {
        Ok(bpf_map_type::BPF_MAP_TYPE_SOCKMAP) => Map::SockMap(data),
        Ok(bpf_map_type::BPF_MAP_TYPE_HASH) => Map::HashMap(data),
        Ok(bpf_map_type::BPF_MAP_TYPE_LRU_HASH) => Map::LruHashMap(data),
        Ok(bpf_map_type::BPF_MAP_TYPE_ARRAY) => Map::Array(data),
        _ => Map::Unsupported(data),
    }
}

fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<_> = text.trim_end_matches('\0').lines().collect();
    let last = lines.iter().rev().find(|line| !line.starts_with("processed "));
    last.unwrap_or(&"").trim().to_owned()
}
