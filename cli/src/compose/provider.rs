//! `mirrord compose …`: what compose calls for a service whose provider is `mirrord`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::parent_id;
use std::process::ExitCode;

use mirrord_protocol::control::Target;
use sha2::{Digest, Sha256};

use super::call::{Asked, Call, Verb};
use super::found::{self, Found};
use super::messages::Compose;
use super::request::Request;
use super::service::Service;
use super::version;
use crate::docker_run::Rehomed;
use crate::engine::Engine;
use crate::engine::endpoint::Sources;
use crate::exit;
use crate::failure::Failure;
use crate::front;
use crate::session::events::Event;
use crate::session::standing::{Caller, Standing};
use crate::session::words::Words;
use crate::session::{Plan, SessionId};
use crate::settings::Settings;

/// Compose hands on all options if it is told of none, so that we can name those that do not exist;
/// and it calls `stop` because that is there.
const METADATA: &str = r#"{"stop":{}}"#;

/// The app gets it with the service's name before it: compose makes a container anew whose variables
/// are others, and one that was made for another session has that one's network, which is gone.
const SESSION: &str = "MIRRORD_SESSION";

/// Does what compose asks for.
pub fn run(words: &[OsString]) -> ExitCode {
    let mut compose = Compose::new();
    let done = Asked::of(words).and_then(|asked| match asked {
        Asked::Metadata => {
            println!("{METADATA}");
            Ok(())
        }
        Asked::Call(call) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime =
                runtime.map_err(|error| Failure::caused_by("cannot start a session", &error))?;
            runtime.block_on(async {
                match call.verb {
                    Verb::Up => up(&call, &mut compose).await,
                    Verb::Down | Verb::Stop => down(&call).await,
                }
            })
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            compose.error(&failure);
            ExitCode::from(exit::FAILED)
        }
    }
}

/// The engine of the environment, which answers.
async fn engine() -> Result<Engine, Failure> {
    answering(Engine::new(&Sources::of_environment().resolve()?)?).await
}

/// The engine, once it has answered in a version that both speak.
pub async fn answering(engine: Engine) -> Result<Engine, Failure> {
    match engine.answer().await {
        Ok(()) => Ok(engine),
        Err(error) => engine.with_version_of(&error).ok_or_else(|| Failure::from(error)),
    }
}

async fn up(call: &Call, compose: &mut Compose) -> Result<(), Failure> {
    version::check()?;
    // What is typed wrong is said before anybody is asked.
    Service::of(&call.options)?;
    let definition = compose.definition(&call.service, &mut io::stdin().lock());
    let definition = definition
        .map_err(|error| Failure::caused_by("compose does not tell what the service is", &error))?;
    let Request { settings, rehomed, names, variables } = Request::of(&call.options, &definition)?;
    settings.warnings.iter().for_each(|warning| compose.info(warning));
    let engine = engine().await?;
    let plan = plan(call, &names, rehomed, &settings, &engine).await?;
    let (session, name, target) = session(call, compose, &plan, &engine).await?;
    compose.own_variable(SESSION, &session.to_string());
    for variable in target.env_skipped.iter().filter(|_| plan.env) {
        compose.info(&format!("the target's variable {variable} is left out: it is not UTF-8"));
    }
    for (name, value) in settings.env.for_container(target.env) {
        if !variables.contains(&name) {
            compose.variable(&name, &value);
        }
    }
    compose.info(&plan.in_place_of(&name));
    Ok(())
}

/// The session that goes on and is what is asked for, else a new one.
async fn session(
    call: &Call,
    compose: &mut Compose,
    plan: &Plan,
    engine: &Engine,
) -> Result<(SessionId, String, Target), Failure> {
    let going = match &plan.standing {
        Some(standing) => found::going(engine, call, standing.caller).await?,
        None => None,
    };
    let asked = plan.standing.as_ref().map(|standing| standing.asked.as_str());
    match going {
        Some(going) if Some(going.asked.as_str()) == asked => {
            return Ok((going.session, going.name, going.target));
        }
        Some(_) => compose.info("something else is asked for: the session begins anew"),
        None => {}
    }
    down(call).await?;
    let (name, target) = front::bring_up(plan, &mut |event| tell(compose, event)).await?;
    Ok((plan.session.clone(), name, target))
}

fn tell(compose: &mut Compose, event: &Event) {
    match (event, Words::of(event)) {
        (Event::Step { step, .. }, _) => compose.info(step.done()),
        (Event::Log { from, line }, _) => compose.debug(&format!("{from}: {line}")),
        (_, Some(Words::Note(text) | Words::Warning(text))) => compose.info(&text),
        (_, Some(Words::Detail(text))) => compose.debug(&text),
        (_, Some(Words::Failure(_)) | None) => {}
    }
}

async fn plan(
    call: &Call,
    names: &[String],
    mut rehomed: Rehomed,
    settings: &Settings,
    engine: &Engine,
) -> Result<Plan, Failure> {
    found::join(engine, &call.project, names, &mut rehomed).await?;
    let mut plan = front::plan_of_compose(settings, rehomed)?;
    if plan.plane.loads_layer(&plan.layer) {
        return Err(Failure::new("a service of compose cannot be given the preload library")
            .hint("leave plane and unix_streams out, or use 'mirrord docker run'"));
    }
    plan.standing = Some(Standing {
        project: call.project.clone(),
        service: call.service.clone(),
        asked: sum(&plan)?,
        caller: Caller::now(parent_id()),
    });
    Ok(plan)
}

/// What tells a plan from another one, but for the session itself.
fn sum(plan: &Plan) -> Result<String, Failure> {
    let cannot = |error| Failure::caused_by("cannot tell what is asked for", &error);
    let mut value = serde_json::to_value(plan).map_err(cannot)?;
    value["session"] = serde_json::Value::Null;
    let sum = Sha256::digest(value.to_string());
    Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Ends the service's session, if there is one; afterwards nothing of it is left.
async fn down(call: &Call) -> Result<(), Failure> {
    let engine = engine().await?;
    for session in Found::all(&engine, call).await? {
        session.end(&engine).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_plans_that_differ_in_their_sessions_alone_ask_for_the_same() {
        let one = Plan::example("unix:///x".to_owned());
        let same =
            Plan { session: crate::session::SessionId::random().expect("random"), ..one.clone() };
        let other = Plan { env: false, ..one.clone() };
        assert_eq!(sum(&one), sum(&same));
        assert_ne!(sum(&one), sum(&other));
    }
}
