//! Services of compose projects in the place of targets, with the real compose.

#[path = "compose/errors.rs"]
mod errors;
#[path = "compose/examples.rs"]
mod examples;
#[path = "compose/one_line.rs"]
mod one_line;
#[path = "compose/provider.rs"]
mod provider;
#[path = "compose/real.rs"]
mod real;
#[path = "compose/shapes.rs"]
mod shapes;
#[path = "compose/wrapper.rs"]
mod wrapper;
