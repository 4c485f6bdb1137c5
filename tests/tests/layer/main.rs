//! Everything that goes through the preload library: processes of this machine, and containers
//! whose engine grants no capability. One executable, so that few tests at a time share the machine.

mod accept;
mod container;
mod names;
mod outgoing;
mod ports;
mod processes;
mod servers;
mod stage;
mod threads;
mod unix;
