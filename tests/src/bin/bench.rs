//! Figures of the product beside a direct connection and two bare relays; see
//! [`mirrord_tests::bench`].

#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    mirrord_tests::bench::main()
}
