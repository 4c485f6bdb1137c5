//! The program in the images of the tests; see [`mirrord_tests::probe`].

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    mirrord_tests::probe::main()
}
