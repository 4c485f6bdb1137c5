//! A session that goes on in the background, for an app that somebody else starts.

use super::link::Keeper;
use crate::docker_run::Rehomed;
use crate::engine::endpoint::Sources;
use crate::failure::Failure;
use crate::session::Plan;
use crate::session::events::Event;
use crate::session::plan::Command;
use crate::session::plane::Plane;
use crate::settings::Settings;
use crate::stand::Stood;

/// The plan of a service whose app compose starts; the endpoint is the environment's.
///
/// # Errors
/// The engine's address cannot be found out.
pub fn plan_of_compose(settings: &Settings, rehomed: Rehomed) -> Result<Plan, Failure> {
    let plane = match Plane::of_container(settings.plane) {
        Plane::Netns { .. } => Plane::Netns { or_layer: false },
        other => other,
    };
    let endpoint = Sources::of_environment().resolve()?;
    Ok(Plan { rehomed, ..super::plan(settings, plane, Some(endpoint))? })
}

/// Brings a session up and leaves it to itself: what is ready. What happens on the way is told.
///
/// # Errors
/// It does not come up; then nothing of it is left.
pub async fn bring_up(plan: &Plan, tell: &mut dyn FnMut(&Event)) -> Result<Stood, Failure> {
    let cannot = |error| Failure::caused_by("cannot start a session", &error);
    let mut keeper = Keeper::start(plan).await.map_err(cannot)?;
    let up = loop {
        match keeper.next().await {
            Some(Event::Ready { name, target, pinned, .. }) => {
                break Ok(Stood { session: plan.session.clone(), name, target, pinned });
            }
            Some(Event::Failed(failure) | Event::Lost(failure) | Event::NoNetns(failure)) => {
                break Err(failure);
            }
            Some(event) => tell(&event),
            None => break Err(Failure::new("the session's keeper was killed")),
        }
    };
    let command = if up.is_ok() { Command::Stay } else { Command::End };
    keeper.end(command).await;
    while let Some(event) = keeper.next().await {
        if matches!(event, Event::Detached) {
            break;
        }
        tell(&event);
    }
    up
}
