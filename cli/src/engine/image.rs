//! The image of sidecar and agent: the running executable, and the preload library that it carries
//! as a file of its own.
//!
//! It is loaded as a docker archive, which takes a sixth of the time of an import on engines that
//! keep their images in containerd, since those compress what they import.

use std::fs::File;
use std::io::{self, Read};

use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use mirrord_protocol::control::SHARED_FOLDER;
use mirrord_protocol::layer::LAYER_FILE;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::connect::{Engine, EngineError};
use super::elf::{self, EXECUTABLE};
use crate::failure::Failure;
use crate::layer::LAYER;

/// The label that every image of ours has; its value is our version.
pub const LABEL: &str = "mirrord.image";
/// Where the executable is in the image.
pub const PATH_INSIDE: &str = "mirrord";
/// Where the preload library is in the image, and in the app's container.
pub const LAYER_FOLDER: &str = "/opt/mirrord";
const BLOCK: usize = 512;
const CHUNK: usize = 1 << 20;

/// Why the image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Our own file.
    #[error("cannot read the running executable")]
    Executable(#[from] io::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Executable(cause) => {
                Failure::new("cannot read the running executable").because(cause.to_string())
            }
            ImageError::Engine(error) => error.into(),
        }
    }
}

/// The image's name: our version and this build.
pub fn tag() -> Result<String, ImageError> {
    let executable = File::open(EXECUTABLE)?;
    let id = match elf::build_id(&executable)? {
        Some(id) => id,
        None => hex(&digest(executable)?),
    };
    Ok(format!("mirrord-agent:{}-{}", env!("CARGO_PKG_VERSION"), &id[..id.len().min(12)]))
}

/// Makes the image and gives it its name.
pub async fn make(engine: &Engine, tag: &str) -> Result<(), ImageError> {
    let size = File::open(EXECUTABLE)?.metadata()?.len();
    let layer = Layer::new(size);
    let layer_digest = hex(&layer.digest()?);
    let archive = archive(tag, layer, &layer_digest)?;
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut answers = engine.api().import_image_stream(options, archive, None);
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| engine.explain("cannot load mirrord's image", error))?;
    }
    Ok(())
}

fn digest(mut from: impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar file with the executable and the preload library in it.
struct Layer {
    size: u64,
}

impl Layer {
    fn new(size: u64) -> Self {
        Self { size }
    }

    fn length(&self) -> u64 {
        self.header().len() as u64 + self.size + self.trailer().len() as u64
    }

    fn header(&self) -> Vec<u8> {
        tar_header(PATH_INSIDE, 0o755, self.size)
    }

    fn trailer(&self) -> Vec<u8> {
        let mut trailer = vec![0; padding(self.size)];
        let folder = LAYER_FOLDER.trim_start_matches('/');
        for (at, _) in folder.match_indices('/').chain([(folder.len(), "")]) {
            trailer.extend(tar_entry(FOLDER, &format!("{}/", &folder[..at]), 0o755, 0));
        }
        trailer.extend(tar_header(&format!("{folder}/{LAYER_FILE}"), 0o755, LAYER.len() as u64));
        trailer.extend(LAYER);
        trailer.resize(trailer.len() + padding(LAYER.len() as u64) + 2 * BLOCK, 0);
        trailer
    }

    fn reader(&self) -> io::Result<impl Read + Send + use<>> {
        let executable = File::open(EXECUTABLE)?.take(self.size);
        Ok(io::Cursor::new(self.header()).chain(executable).chain(io::Cursor::new(self.trailer())))
    }

    fn digest(&self) -> io::Result<[u8; 32]> {
        digest(self.reader()?)
    }
}

/// What `docker save` would write.
fn archive(
    tag: &str,
    layer: Layer,
    layer_digest: &str,
) -> io::Result<impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{PATH_INSIDE}")],
            "Volumes": { SHARED_FOLDER: {} },
            "Labels": { LABEL: env!("CARGO_PKG_VERSION") },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created_by": "mirrord" }],
    })
    .to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    let layer_name = format!("{layer_digest}.tar");
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [tag], "Layers": [layer_name] }]).to_string();
    let head = tar_header(&layer_name, 0o644, layer.length());
    let mut tail = vec![0; padding(layer.length())];
    for (name, content) in [(config_name.as_str(), &config), ("manifest.json", &manifest)] {
        tail.extend(tar_header(name, 0o644, content.len() as u64));
        tail.extend(content.as_bytes());
        tail.resize(tail.len() + padding(content.len() as u64), 0);
    }
    tail.resize(tail.len() + 2 * BLOCK, 0);
    let whole = io::Cursor::new(head).chain(layer.reader()?);
    Ok(chunks(whole.chain(io::Cursor::new(tail))))
}

fn chunks(
    reader: impl Read + Send + 'static,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        Ok::<_, io::Error>((!chunk.is_empty()).then(|| (Bytes::from(chunk), reader)))
    })
    .into_stream()
}

fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

const REGULAR_FILE: &str = "0";
const FOLDER: &str = "5";

/// A ustar header for a regular file of root's.
fn tar_header(name: &str, mode: u32, size: u64) -> Vec<u8> {
    tar_entry(REGULAR_FILE, name, mode, size)
}

fn tar_entry(kind: &str, name: &str, mode: u32, size: u64) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, kind);
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_tag_names_version_and_build() {
        let tag = tag().expect("our own executable");
        let (version, build) = tag.rsplit_once('-').expect("two parts");
        assert_eq!(version, format!("mirrord-agent:{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(build.len(), 12);
    }

    #[test]
    fn tar_reads_the_layer() {
        let size = File::open(EXECUTABLE).and_then(|file| file.metadata()).expect("ours").len();
        let mut reader = Layer::new(size).reader().expect("ours");
        let mut tar = Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar");
        let mut input = tar.stdin.take().expect("a pipe");
        io::copy(&mut reader, &mut input).expect("written");
        drop(input);
        let output = tar.wait_with_output().expect("tar ends");
        let listing = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        assert!(
            listing.starts_with("-rwxr-xr-x") && listing.contains(&size.to_string()),
            "{listing}"
        );
        let library = format!("{}/{LAYER_FILE}", LAYER_FOLDER.trim_start_matches('/'));
        assert!(listing.lines().any(|line| line.ends_with(&library)), "{listing}");
    }
}
