//! `mirrord podman run`: for root, whose containers the kernel redirects, and for a user without
//! rights, whose containers get the preload library.

mod rootful;
mod rootless;
mod stage;
