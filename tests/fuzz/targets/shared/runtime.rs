//! One runtime for all inputs.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// Runs what one input does; what it leaves behind is dropped.
pub fn run(work: impl Future<Output = ()>) {
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, work));
}
