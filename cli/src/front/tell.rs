//! What the session says, as the user reads it.

use std::time::Duration;

use super::{Front, Keeping};
use crate::session::events::Event;
use crate::session::words::Words;

impl Front<'_> {
    pub(super) fn tell_ready(
        &mut self,
        name: &str,
        undelivered: &[(String, &str)],
        skipped: &[String],
    ) {
        for (variable, reason) in undelivered {
            self.progress
                .warning(&format!("the target's variable {variable} is left out: {reason}"));
        }
        for variable in skipped.iter().filter(|_| self.plan.env) {
            let text = format!("the target's variable {variable} is left out: it is not UTF-8");
            self.progress.warning(&text);
        }
        if let Some(text) = self.plan.overruled_dns() {
            self.progress.warning(&text);
        }
        self.progress.ready(&self.plan.in_place_of(name));
    }

    pub(super) fn tell(&mut self, event: Event) {
        match &event {
            Event::Step { step, took } => self.progress.step(*step, *took),
            Event::MakesImage => self.progress.waits_for("making the image, once"),
            Event::Log { from, line } => self.progress.log(from, line),
            Event::Cleaned { took } => {
                self.keeping = Keeping::Done;
                let took = Duration::from_millis(*took).as_secs_f64();
                self.progress.detail(&format!("cleaned up ({took:.2} s)"));
            }
            event => match Words::of(event) {
                Some(Words::Detail(text)) => self.progress.detail(&text),
                Some(Words::Note(text)) => self.progress.note(&text),
                Some(Words::Warning(text)) => self.progress.warning(&text),
                Some(Words::Failure(failure)) => self.progress.failure(&failure),
                None => {}
            },
        }
    }
}
