//! `docker compose run`: compose gives such a container none of a provider's variables, so we do.

use std::collections::HashSet;

use mirrord_compose::{Stand, Wanted};

use super::found;
use super::project::Project;
use super::request::Request;
use super::wrapper::Composed;
use crate::engine::Engine;
use crate::engine::endpoint::Sources;
use crate::failure::Failure;
use crate::front;
use crate::session::standing::{Caller, Place};

/// Brings the session of the service up, if it has one, and becomes compose.
///
/// # Errors
/// The session does not come up.
pub fn run(
    composed: &mut Composed<'_>,
    project: &Project,
    wanted: &[Wanted],
    stands: &[Stand],
) -> Result<Failure, Failure> {
    let line = composed.line;
    let (service, ports) = line.run();
    let of = |service: &String| {
        let at = stands.iter().position(|stand| stand.service == *service)?;
        Some((&wanted[at], &stands[at]))
    };
    let Some((wanted, stand)) = service.as_ref().and_then(of) else {
        return Ok(composed.become_it(&line.rest, composed.command()));
    };
    if ports {
        return Err(Failure::new("a container in another one's network cannot publish ports")
            .hint(format!("give service {} its ports in the compose file", wanted.service)));
    }
    composed.beside(&["up", "-d", &stand.provider])?;
    let (name, value) = &wanted.told;
    let definition = serde_json::json!({"environment": {name.as_str(): value}});
    let project_name = project.model["name"].as_str().unwrap_or_default();
    let place = Place { project: project_name.to_owned(), service: stand.provider.clone() };
    let request = Request::of(&wanted.options, None, &definition)?;
    let target = going(&place, &line.docker)?;
    let users: HashSet<String> = request.variables.iter().cloned().collect();
    let delivery = request.settings.env.deliver(target, &users);
    let mut command = composed.command();
    let file = front::memory_file(c"target-env", delivery.file.as_bytes())?;
    let mut rest = vec!["--env-from-file".into(), front::path_of(&file).into()];
    for (name, value) in &delivery.by_name {
        rest.push(format!("--env={name}").into());
        command.env(name, value);
    }
    rest.extend(line.rest.iter().cloned());
    Ok(composed.become_it(&rest, command))
}

/// The target's variables, from the session that has just come up.
fn going(place: &Place, docker: &[std::ffi::OsString]) -> Result<Vec<(String, String)>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::caused_by("cannot ask the session", &error))?;
    runtime.block_on(async {
        let engine = Engine::new(&Sources::of_flags(docker).resolve()?)?;
        let engine = crate::stand::answering(engine).await?;
        let caller = Caller::now(std::process::id());
        let going = found::going(&engine, place, caller).await?;
        going.map(|going| going.target.env).ok_or_else(|| Failure::new("the session has ended"))
    })
}

/// What compose said last, which is why it failed.
pub fn last_words(said: &str) -> Failure {
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with(' ')).collect();
    let failure = Failure::new(lines.first().copied().unwrap_or("compose failed"));
    match lines.get(1).and_then(|line| line.strip_prefix("hint: ")) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
