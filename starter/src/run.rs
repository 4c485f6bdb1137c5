//! The loop: strangers at the door, at most one peer that delivers, and an end to waiting.

use crate::arguments::Arguments;
use crate::door::Door;
use crate::reception::{Reception, Refusal, Step, Workshop};
use crate::sys::{self, Errno, Fd, Interest, Start};
use crate::text::Line;
use crate::wire;

/// A peer that has shown the token.
struct Visit {
    peer: Fd,
    /// None once its program was refused: the rest of it is read and forgotten, since an answer
    /// may be lost on its way when what was sent is never read.
    reception: Option<Reception>,
}

/// The starter at work.
struct Starter<'a> {
    start: &'a Start,
    arguments: Arguments,
    listener: Fd,
    door: Door,
    visit: Option<Visit>,
    until: u64,
}

/// Waits for the program and becomes it; returns the exit code if that did not happen.
pub fn run(start: &Start) -> i32 {
    sys::set_signals();
    let Some(arguments) = Arguments::read(start.words()) else {
        complain(Line::new("usage: starter PORT SHA256(token) SHA256(program) SECONDS"));
        return wire::MISUSED;
    };
    let listener = match sys::listen(arguments.port) {
        Ok(listener) => listener,
        Err(errno) => return deaf(arguments.port, errno),
    };
    let door = Door::new(arguments.token);
    let until = sys::now_ms().saturating_add(arguments.patience_ms);
    Starter { start, arguments, listener, door, visit: None, until }.serve(&mut Workshop::new())
}

fn deaf(port: u16, errno: Errno) -> i32 {
    complain(
        Line::new("cannot listen on 127.0.0.1:")
            .number(u64::from(port))
            .text(": ")
            .text(errno.name())
            .text(" (")
            .number(u64::from(errno.0))
            .text(")"),
    );
    if errno == Errno::ADDRESS_IN_USE { wire::PORT_TAKEN } else { wire::FAILED }
}

fn complain(line: Line) {
    sys::complain(line.end().bytes());
}

impl Starter<'_> {
    fn serve(&mut self, workshop: &mut Workshop) -> i32 {
        loop {
            let now = sys::now_ms();
            if now >= self.until {
                complain(
                    Line::new("no program was delivered in ")
                        .number(self.arguments.patience_ms / 1_000)
                        .text(" s"),
                );
                return wire::NOT_DELIVERED;
            }
            self.door.send_late_ones_away(now);
            let mut interests = self.interests();
            let next = self.door.next_end().unwrap_or(self.until).min(self.until);
            sys::wait(&mut interests, next.saturating_sub(now));
            self.attend(&interests, workshop);
        }
    }

    /// In the listener, the visitor, and a place at the door each.
    fn interests(&self) -> [Interest; 2 + wire::MOST_STRANGERS] {
        let visitor = self.visit.as_ref().map(|visit| &visit.peer);
        let all = [Some(&self.listener), visitor].into_iter().chain(self.door.peers());
        let mut interests = [Interest::NONE; 2 + wire::MOST_STRANGERS];
        for (interest, fd) in interests.iter_mut().zip(all) {
            *interest = Interest::in_what_comes(fd);
        }
        interests
    }

    fn attend(&mut self, interests: &[Interest], workshop: &mut Workshop) {
        let mut found = interests.iter().map(Interest::found);
        let (listener, visitor) = (found.next(), found.next());
        if visitor == Some(true) {
            self.attend_visitor(workshop);
        }
        for (place, found) in found.enumerate() {
            if found && let Some(peer) = self.door.hear(place) {
                self.welcome(peer, workshop);
            }
        }
        if listener == Some(true) {
            self.door.admit(&self.listener, sys::now_ms());
        }
    }

    /// Whoever shows the token last is heard: the former connection may be dead without a sign.
    fn welcome(&mut self, peer: Fd, workshop: &mut Workshop) {
        sys::say(&peer, wire::GREETING);
        let reception = Some(Reception::new(self.arguments.program, workshop));
        self.visit = Some(Visit { peer, reception });
        self.until = sys::now_ms().saturating_add(self.arguments.patience_ms);
    }

    fn attend_visitor(&mut self, workshop: &mut Workshop) {
        let Some(visit) = &mut self.visit else { return };
        let Some(reception) = &mut visit.reception else {
            if workshop.discard(&visit.peer) {
                self.visit = None;
            }
            return;
        };
        let refusal = match reception.advance(&visit.peer, workshop) {
            Ok(Step::More) => return,
            Ok(Step::Lost) => {
                self.visit = None;
                return;
            }
            Ok(Step::Complete(program)) => {
                sys::say(&visit.peer, wire::DONE);
                let errno = sys::become_agent(&program, &visit.peer, &self.listener, self.start);
                Refusal::Execution(errno)
            }
            Err(refusal) => refusal,
        };
        visit.reception = None;
        sys::say(&visit.peer, refusal.line().bytes());
        sys::fall_silent(&visit.peer);
    }
}
