//! `mirrord compose …`: what compose calls for a service whose provider is `mirrord`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::parent_id;
use std::process::ExitCode;

use super::app;
use super::call::{Asked, Call, Verb};
use super::found;
use super::messages::Compose;
use super::request::Request;
use super::service::Service;
use super::version;
use crate::docker_run::Rehomed;
use crate::engine::Engine;
use crate::exit;
use crate::failure::Failure;
use crate::front;
use crate::lock::{self, Entry, Locking};
use crate::session::Plan;
use crate::session::events::Event;
use crate::session::standing::{Caller, Place, Standing};
use crate::session::words::Words;
use crate::settings::Settings;
use crate::stand::{self, Stood, Told, engine, stand};

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
                    Verb::Stop => stand::end(&engine().await?, &call.place).await,
                    Verb::Down => down(&call.place).await,
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

async fn up(call: &Call, compose: &mut Compose) -> Result<(), Failure> {
    version::check()?;
    // What is typed wrong is said before anybody is asked.
    Service::of(&call.options)?;
    let definition = compose.definition(&call.place.service, &mut io::stdin().lock());
    let definition = definition
        .map_err(|error| Failure::caused_by("compose does not tell what the service is", &error))?;
    let whole = app::is_its_own(&call.place, &definition).await?;
    let own = whole.then_some(call.place.service.as_str());
    let Request { settings, rehomed, names, variables, image } =
        Request::of(&call.options, own, &definition)?;
    settings.warnings.iter().for_each(|warning| compose.info(warning));
    let engine = engine().await?;
    let plan = plan(call, &names, rehomed, &settings, &engine).await?;
    let Stood { session, name, target, pinned } = stand(&plan, &engine, &mut |told| match told {
        Told::Anew => compose.info(Told::ANEW),
        Told::Event(event) => tell(compose, event),
    })
    .await?;
    let given = settings.env.for_container(target.env).into_iter();
    let given: Vec<_> = given.filter(|(name, _)| !variables.contains(name)).collect();
    let entry = Entry::of(&plan, pinned, given.iter().map(|(name, _)| name));
    let locked = locked(settings.locking, call, entry, image.as_deref(), &engine);
    let ready = async {
        locked.await?;
        match whole {
            true => app::create(&engine, &call.place, &definition, &session, &given).await,
            false => Ok(()),
        }
    };
    if let Err(failure) = ready.await {
        down(&call.place).await?;
        return Err(failure);
    }
    for variable in target.env_skipped.iter().filter(|_| plan.env) {
        compose.info(&format!("the target's variable {variable} is left out: it is not UTF-8"));
    }
    if !whole {
        compose.own_variable(SESSION, &session.to_string());
        given.iter().for_each(|(name, value)| compose.variable(name, value));
    }
    compose.info(&plan.in_place_of(&name));
    Ok(())
}

/// Nothing of the service is left; its app's container is compose's, unless we have run it.
async fn down(place: &Place) -> Result<(), Failure> {
    let engine = engine().await?;
    stand::end(&engine, place).await?;
    Ok(app::remove(&engine, place).await?)
}

/// Writes down what the service depends on, or refuses it where that is not as it was.
async fn locked(
    locking: Locking,
    call: &Call,
    entry: Entry,
    image: Option<&str>,
    engine: &Engine,
) -> Result<(), Failure> {
    let entry = match image.filter(|_| locking != Locking::None) {
        Some(image) => entry.with_image(engine, image).await?,
        None => entry,
    };
    lock::settle(locking, &call.place.service, &entry)
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
    found::join(engine, &call.place.project, names, &mut rehomed).await?;
    let mut plan = front::plan_of_compose(settings, rehomed)?;
    if plan.plane.loads_layer(&plan.layer) {
        return Err(Failure::new("a service of compose cannot be given the preload library")
            .hint("leave plane and unix_streams out, or use 'mirrord docker run'"));
    }
    plan.standing = Some(Standing {
        place: call.place.clone(),
        asked: stand::sum(&plan)?,
        caller: Caller::now(parent_id()),
    });
    Ok(plan)
}
