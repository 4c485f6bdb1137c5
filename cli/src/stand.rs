//! Sessions that stand for a container which somebody else starts: `mirrord up NAME`, and the
//! provider of compose.

mod up;

use mirrord_protocol::control::Target;
use sha2::{Digest, Sha256};

pub use self::up::{UpArgs, down, up};
use crate::compose::found::{self, Found};
use crate::engine::Engine;
use crate::engine::endpoint::Sources;
use crate::failure::Failure;
use crate::front;
use crate::lock::Pinned;
use crate::session::events::Event;
use crate::session::standing::{Going, Place};
use crate::session::{Plan, SessionId};

/// A session that stands.
pub struct Stood {
    /// Which one.
    pub session: SessionId,
    /// The target, as the user names it.
    pub name: String,
    /// What the target says of itself.
    pub target: Target,
    /// What of it a run can depend on.
    pub pinned: Pinned,
}

/// What is told on the way.
pub enum Told<'a> {
    /// Another session stood there.
    Anew,
    /// What the new one says.
    Event(&'a Event),
}

impl Told<'_> {
    /// [`Told::Anew`] in words.
    pub const ANEW: &'static str = "something else is asked for: the session begins anew";
}

/// The session that goes on and is what is asked for, else a new one.
///
/// # Errors
/// It does not come up; then nothing of it is left.
pub async fn stand(
    plan: &Plan,
    engine: &Engine,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Stood, Failure> {
    let standing = plan.standing.as_ref();
    let standing = standing.ok_or_else(|| Failure::new("nobody stands there"))?;
    match found::going(engine, &standing.place, standing.caller).await? {
        Some(going) if going.asked == standing.asked => {
            let Going { session, name, target, pinned, .. } = going;
            return Ok(Stood { session, name, target, pinned });
        }
        Some(_) => tell(Told::Anew),
        None => {}
    }
    end(engine, &standing.place).await?;
    front::bring_up(plan, &mut |event| tell(Told::Event(event))).await
}

/// Ends the session of a place, if there is one; afterwards nothing of it is left.
///
/// # Errors
/// The engine refuses.
pub async fn end(engine: &Engine, place: &Place) -> Result<(), Failure> {
    for session in Found::all(engine, place).await? {
        session.end(engine).await?;
    }
    Ok(())
}

/// What tells a plan from another one, but for the session itself.
///
/// # Errors
/// It can't be written down.
pub fn sum(plan: &Plan) -> Result<String, Failure> {
    let cannot = |error| Failure::caused_by("cannot tell what is asked for", &error);
    let mut value = serde_json::to_value(plan).map_err(cannot)?;
    value["session"] = serde_json::Value::Null;
    let sum = Sha256::digest(value.to_string());
    Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The engine of the environment, which answers.
///
/// # Errors
/// It does not.
pub async fn engine() -> Result<Engine, Failure> {
    answering(Engine::new(&Sources::of_environment().resolve()?)?).await
}

/// The engine, once it has answered in a version that both speak.
///
/// # Errors
/// It does not answer.
pub async fn answering(engine: Engine) -> Result<Engine, Failure> {
    match engine.answer().await {
        Ok(()) => Ok(engine),
        Err(error) => engine.with_version_of(&error).ok_or_else(|| Failure::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_plans_that_differ_in_their_sessions_alone_ask_for_the_same() {
        let one = Plan::example("unix:///x".to_owned());
        let same = Plan { session: SessionId::random().expect("random"), ..one.clone() };
        let other = Plan { env: false, ..one.clone() };
        assert_eq!(sum(&one), sum(&same));
        assert_ne!(sum(&one), sum(&other));
    }
}
