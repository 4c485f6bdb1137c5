//! What a container would execute, looked at before it runs: a statically linked program loads no
//! library, and would be outside of the target's network without a word.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bollard::models::{ContainerCreateBody, ImageConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::clean::{SESSION_LABEL, remove};
use super::connect::{Engine, EngineError};
use crate::program;
use crate::session::SessionId;

/// So many links and scripts may lead to a program.
const LEADS: usize = 8;
/// A tar header.
const HEADER: usize = 512;
/// What is read of a file: as much as its program headers may take.
const HEAD: usize = 8 << 10;
/// What the loader loads before anything else (ld.so(8)).
pub const PRELOAD: &str = "LD_PRELOAD";
const LINK: u8 = b'2';
/// Where a program is looked for without PATH, as runc does.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the docker line says which program runs.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The image.
    pub image: &'a str,
    /// `--entrypoint`, if it was given.
    pub entrypoint: Option<&'a str>,
    /// What stands behind the image.
    pub words: &'a [String],
}

/// What can be said of a container's program before it runs.
#[derive(Debug, Default)]
pub struct Program {
    /// Its file, if it is statically linked.
    pub static_file: Option<PathBuf>,
    /// What the image itself has loaded into its programs.
    pub preloaded: Option<String>,
}

/// Looks at the program. What cannot be looked at, such as an image that is not here yet, or a
/// program that a volume brings, is taken not to be static.
pub async fn look(
    engine: &Engine,
    session: &SessionId,
    line: Line<'_>,
) -> Result<Program, EngineError> {
    let Ok(image) = engine.api().inspect_image(line.image).await else {
        return Ok(Program::default());
    };
    let config = image.config.unwrap_or_default();
    let preloaded = variable(&config, PRELOAD).filter(|libraries| !libraries.is_empty());
    let preloaded = preloaded.map(str::to_owned);
    let Some(name) = program_of(&config, line) else {
        return Ok(Program { static_file: None, preloaded });
    };
    let container = create(engine, session, line.image).await?;
    let found = Look { engine, container: &container }.find(&config, &name).await;
    remove(engine, &container).await?;
    let static_file =
        found.filter(|(_, head)| program::needs_no_loader(head)).map(|(path, _)| path);
    Ok(Program { static_file, preloaded })
}

/// The first word of what runs; `--entrypoint` takes the image's command away as well.
fn program_of(config: &ImageConfig, line: Line<'_>) -> Option<String> {
    if let Some(entrypoint) = line.entrypoint.filter(|entrypoint| !entrypoint.is_empty()) {
        return Some(entrypoint.to_owned());
    }
    let own = config.entrypoint.iter().flatten().filter(|_| line.entrypoint.is_none());
    let command = config.cmd.iter().flatten().filter(|_| line.entrypoint.is_none());
    let mut all = own.chain(line.words).chain(command);
    all.next().cloned()
}

/// A container that never runs.
async fn create(engine: &Engine, session: &SessionId, image: &str) -> Result<String, EngineError> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/nothing".to_owned()]),
        labels: Some(HashMap::from([(SESSION_LABEL.to_owned(), session.to_string())])),
        ..ContainerCreateBody::default()
    };
    let name = format!("mirrord-look-{session}");
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let created = engine.api().create_container(Some(options), body).await;
    Ok(created.map_err(|error| engine.explain("cannot look into the image", error))?.id)
}

struct Look<'a> {
    engine: &'a Engine,
    container: &'a str,
}

/// A file's beginning, or where a link leads.
enum Entry {
    Head(Vec<u8>),
    Link(PathBuf),
}

impl Look<'_> {
    /// The program's file and how it begins, behind links and scripts.
    async fn find(&self, config: &ImageConfig, name: &str) -> Option<(PathBuf, Vec<u8>)> {
        let mut found = None;
        for path in candidates(config, name) {
            found = self.follow(path).await;
            if found.is_some() {
                break;
            }
        }
        found
    }

    async fn follow(&self, mut path: PathBuf) -> Option<(PathBuf, Vec<u8>)> {
        for _ in 0..LEADS {
            let head = match self.entry(&path).await? {
                Entry::Link(to) => {
                    path = plain(&path.parent()?.join(to));
                    continue;
                }
                Entry::Head(head) => head,
            };
            match program::interpreter(&head) {
                Some(interpreter) => path = interpreter,
                None => return Some((path, head)),
            }
        }
        None
    }

    async fn entry(&self, path: &Path) -> Option<Entry> {
        let path = path.to_str()?;
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut archive =
            Box::pin(self.engine.api().download_from_container(self.container, Some(options)));
        let mut bytes = Vec::new();
        while bytes.len() < HEADER + HEAD {
            match archive.next().await {
                Some(chunk) => bytes.extend_from_slice(&chunk.ok()?),
                None => break,
            }
        }
        let (header, file) = bytes.split_at_checked(HEADER)?;
        match header[156] {
            LINK => {
                let name = header[157..257].split(|byte| *byte == 0).next()?;
                Some(Entry::Link(PathBuf::from(std::str::from_utf8(name).ok()?)))
            }
            _ => Some(Entry::Head(file.to_vec())),
        }
    }
}

fn candidates(config: &ImageConfig, name: &str) -> Vec<PathBuf> {
    if name.contains('/') {
        let folder = config.working_dir.as_deref().filter(|folder| !folder.is_empty());
        return vec![plain(&Path::new(folder.unwrap_or("/")).join(name))];
    }
    let folders =
        variable(config, "PATH").filter(|path| !path.is_empty()).unwrap_or(PATH).split(':');
    folders.map(|folder| Path::new("/").join(folder).join(name)).collect()
}

fn variable<'a>(config: &'a ImageConfig, name: &str) -> Option<&'a str> {
    let all = config.env.iter().flatten();
    all.filter_map(|variable| variable.strip_prefix(name)?.strip_prefix('=')).next_back()
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::from("/"), |mut plain, component| {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => plain.push(name),
            _ => {}
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entrypoint: &[&str], cmd: &[&str], env: &[&str]) -> ImageConfig {
        let list = |words: &[&str]| {
            (!words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect())
        };
        ImageConfig {
            entrypoint: list(entrypoint),
            cmd: list(cmd),
            env: list(env),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn what_runs_is_what_docker_says() {
        let words = ["w".to_owned()];
        let of = |config: &ImageConfig, entrypoint: Option<&str>, words: &[String]| {
            program_of(config, Line { image: "i", entrypoint, words })
        };
        let both = config(&["e"], &["c"], &[]);
        assert_eq!(of(&both, None, &[]).as_deref(), Some("e"));
        assert_eq!(of(&both, Some("x"), &words).as_deref(), Some("x"));
        assert_eq!(of(&both, Some(""), &words).as_deref(), Some("w"));
        assert_eq!(of(&both, Some(""), &[]), None);
        assert_eq!(of(&config(&[], &["c"], &[]), None, &[]).as_deref(), Some("c"));
        assert_eq!(of(&config(&[], &["c"], &[]), None, &words).as_deref(), Some("w"));
    }

    #[test]
    fn a_name_is_looked_for_in_the_images_path() {
        let config = config(&[], &[], &["A=b", "PATH=/x:/y"]);
        assert_eq!(candidates(&config, "p"), [Path::new("/x/p"), Path::new("/y/p")]);
        assert_eq!(candidates(&config, "./p/../q"), [Path::new("/q")]);
        assert_eq!(plain(Path::new("/bin/../usr/bin/x")), Path::new("/usr/bin/x"));
    }
}
