//! The words by which compose calls a provider.

use std::ffi::OsString;

use crate::failure::Failure;
use crate::session::standing::Place;

/// What compose wants of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is to run.
    Up,
    /// Nothing of it is to be left.
    Down,
    /// It is not to run.
    Stop,
}

/// `[--project-name=PROJECT] up|down|stop [--OPTION=VALUE…] SERVICE`, in any order of options.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// What is wanted.
    pub verb: Verb,
    /// The project and the provider's service.
    pub place: Place,
    /// `provider.options` of the file, each value of a list on its own.
    pub options: Vec<(String, String)>,
}

/// What compose asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Which options there are.
    Metadata,
    /// To do something.
    Call(Call),
}

impl Asked {
    /// Reads the words behind `mirrord compose`.
    ///
    /// # Errors
    /// They are not compose's.
    pub fn of(words: &[OsString]) -> Result<Self, Failure> {
        let (mut options, mut plain) = (Vec::new(), Vec::new());
        let mut words = words.iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                None => plain.push(word),
                Some(option) => options.push(match option.split_once('=') {
                    Some((name, value)) => (name.to_owned(), value.to_owned()),
                    None => (option.to_owned(), words.next().unwrap_or_default()),
                }),
            }
        }
        let verb = match plain.first().map(String::as_str) {
            Some("metadata") => return Ok(Self::Metadata),
            Some("up") => Verb::Up,
            Some("down") => Verb::Down,
            Some("stop") => Verb::Stop,
            _ => return Err(not_composes()),
        };
        let is_project = |(name, _): &(String, String)| name == "project-name";
        let project = options.iter().position(is_project).map(|at| options.remove(at).1);
        let (Some(project), [_, service]) = (project, plain.as_slice()) else {
            return Err(not_composes());
        };
        let place = Place { project, service: service.clone() };
        Ok(Self::Call(Call { verb, place, options }))
    }
}

fn not_composes() -> Failure {
    Failure::new("'mirrord compose' is what compose itself calls, for a service with a provider")
        .hint("put this into a compose file: provider: {type: mirrord, options: {target: …}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, Failure> {
        Asked::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_come_in_any_order_and_more_than_once() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Call {
            verb: Verb::Up,
            place: Place { project: "shop".to_owned(), service: "cluster".to_owned() },
            options: vec![pair("ports", "80:80"), pair("target", "pod/a=b"), pair("ports", "1:1")],
        };
        let line = "--project-name=shop up --ports=80:80 --target=pod/a=b --ports=1:1 cluster";
        assert_eq!(asked(line), Ok(Asked::Call(expected)));
        let Ok(Asked::Call(call)) = asked("--project-name shop down cluster") else { panic!() };
        assert_eq!((call.verb, call.place.project.as_str()), (Verb::Down, "shop"));
        assert_eq!(asked("metadata"), Ok(Asked::Metadata));
    }

    #[test]
    fn what_compose_would_not_say_is_refused() {
        for line in ["", "up", "up cluster", "--project-name=shop", "--project-name=shop rm a"] {
            assert!(asked(line).is_err(), "{line}");
        }
    }
}
