//! What a service's `provider.options` ask for.

use clap::{ArgAction, Args, FromArgMatches};
use mirrord_compose::KEYS;

use crate::args::Options;
use crate::config;
use crate::failure::{Failure, nearest};

/// Names by which peers know the app.
const SERVICE: &str = "service";
/// Options that say how we talk to a terminal, which compose does.
const TALK: &[&str] =
    &["explain", "output", "progress", "quiet", "verbose", "color", "help", "service"];

/// What is asked for.
#[derive(Debug)]
pub struct Service {
    /// Our options.
    pub options: Options,
    /// The names by which peers know the app.
    pub names: Vec<String>,
}

impl Service {
    /// Reads the options of a provider.
    ///
    /// # Errors
    /// One that does not exist, or a value that cannot be read.
    pub fn of(given: &[(String, String)]) -> Result<Self, Failure> {
        let known = Options::augment_args(clap::Command::new("mirrord"));
        let (mut ours, mut names) = (Vec::new(), Vec::new());
        for (key, value) in given {
            match key == SERVICE {
                true => names.extend(value.split(',').map(|name| name.trim().to_owned())),
                false => ours.extend(option(&known, key, value)?),
            }
        }
        Ok(Self { options: options(&ours)?, names })
    }
}

/// Our options, from words of the command line.
pub fn options(words: &[String]) -> Result<Options, Failure> {
    let known = Options::augment_args(clap::Command::new("mirrord").no_binary_name(true));
    let matches = known.try_get_matches_from(words).map_err(|error| crate::explain(&error))?;
    Options::from_arg_matches(&matches).map_err(|error| crate::explain(&error))
}

/// Whether a key is one of our options, and no key of a configuration file.
pub fn is_option(key: &str) -> bool {
    let known = Options::augment_args(clap::Command::new("mirrord"));
    let long = key.replace('_', "-");
    let fit = |name: &&str| !TALK.contains(name);
    let is_one = known.get_arguments().any(|arg| arg.get_long().filter(fit) == Some(&long));
    (is_one || key == SERVICE) && !config::is_key(key)
}

/// One of our options as a word, unless it says what holds anyway.
fn option(known: &clap::Command, key: &str, value: &str) -> Result<Option<String>, Failure> {
    let long = key.replace('_', "-");
    let fit = |name: &&str| !TALK.contains(name);
    let arg = known.get_arguments().find(|arg| arg.get_long().filter(fit) == Some(&long));
    let Some(arg) = arg else { return Err(unknown(known, key)) };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, "true") => Ok(Some(format!("--{long}"))),
        (ArgAction::SetTrue, "false") => Ok(None),
        (ArgAction::SetTrue, other) => {
            Err(Failure::new(format!("option {key} must be true or false; here is {other:?}")))
        }
        _ => Ok(Some(format!("--{long}={value}"))),
    }
}

fn unknown(known: &clap::Command, key: &str) -> Failure {
    let longs = known.get_arguments().filter_map(clap::Arg::get_long);
    let ours = longs.filter(|name| !TALK.contains(name)).map(|name| name.replace('-', "_"));
    let names: Vec<String> = ours.chain([SERVICE.to_owned()]).collect();
    let near = nearest(key, names.iter().map(String::as_str));
    let hint = match (KEYS.contains(&key), near.first()) {
        (true, _) => format!("{key} stands beside provider, as in any other service"),
        (false, Some(near)) => format!("did you mean {near}?"),
        (false, None) => "an option is one of 'mirrord --help', or service".to_owned(),
    };
    Failure::new(format!("mirrord has no option {key:?} for a provider")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(given: &[(&str, &str)]) -> Result<Service, Failure> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Service::of(&given.iter().map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_those_of_the_command_line() {
        let read = service(&[
            ("target", "deployment/orders"),
            ("steal", "true"),
            ("no_env", "false"),
            ("target_namespace", "shop"),
            ("service", "orders, api"),
        ])
        .expect("options");
        assert_eq!(read.options.target.as_deref(), Some("deployment/orders"));
        assert_eq!(read.options.cluster.target_namespace.as_deref(), Some("shop"));
        assert!(read.options.steal && !read.options.no_env);
        assert_eq!(read.names, ["orders", "api"]);
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_may_be_meant() {
        let hint = |key: &str| service(&[(key, "x")]).expect_err(key).hint.expect("a hint");
        assert_eq!(hint("traget"), "did you mean target?");
        assert_eq!(hint("ports"), "ports stands beside provider, as in any other service");
        assert_eq!(hint("sevice"), "did you mean service?");
        assert!(service(&[("quiet", "true")]).is_err());
        let kind = service(&[("steal", "yes")]).expect_err("no word for true");
        assert_eq!(kind.sentence, "option steal must be true or false; here is \"yes\"");
        let both = service(&[("steal", "true"), ("mirror", "true")]).expect_err("both");
        assert!(both.sentence.contains("--steal"), "{both:?}");
    }
}
