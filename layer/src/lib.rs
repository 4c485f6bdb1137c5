//! What is loaded into a process so that its sockets and names are those of the target.
//!
//! ```text
//!  start ── engine, patch, go    interpose: the rows of the table     Go's and a static program's
//!    │                             │            │          │          system calls
//!    ▼                             ▼            ▼          ▼               │
//!  settings                     detours ◄──── exec       names             │
//!  who the proxy is                │  ▲─────────┼──────────┼───────────────┘
//!                                  ▼            ▼          ▼
//!                  page: what the proxy wrote   proxy: what it is asked
//!                                  └── address ─┴── sys: the kernel, without a libc
//! ```
//!
//! Nothing is remembered by descriptor, nothing is locked, nothing is allocated, nothing panics.

#![cfg_attr(
    all(not(test), any(feature = "preload", feature = "blob"), not(feature = "frida")),
    no_std
)]
#![allow(unsafe_code)]

pub mod address;
#[cfg(all(feature = "blob", target_arch = "x86_64", not(test)))]
mod blob;
pub mod detours;
pub mod engine;
pub mod exec;
pub mod go;
#[cfg(all(feature = "preload", not(test)))]
#[macro_use]
pub mod interpose;
pub mod names;
pub mod page;
#[cfg(all(any(feature = "preload", feature = "blob"), not(feature = "frida"), not(test)))]
mod panic;
pub mod patch;
pub mod proxy;
pub mod settings;
#[cfg(all(feature = "preload", not(test)))]
mod start;
pub mod sys;
pub mod table;
