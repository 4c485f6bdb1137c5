//! Tests of lists in pages of our own.

use std::cell::RefCell;

use super::*;

const SERVICE: Service = Service { kind: libc::SOCK_STREAM, protocol: 6, port: 80u16.to_be() };

fn services(count: usize) -> Services {
    Services { list: [SERVICE; Services::MAX], len: count }
}

fn ips(count: u32) -> impl Iterator<Item = IpAddr> + Clone {
    (0..count).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
}

fn build(count: u32, kinds: usize) -> *mut addrinfo {
    let services = services(kinds);
    let content = Content {
        addresses: ips(count),
        services: &services,
        flags: 0,
        canonical: Some(b"db"),
        repeated: false,
    };
    content.build().expect("memory")
}

fn entries(list: *mut addrinfo) -> Vec<*mut addrinfo> {
    let (mut entries, mut entry) = (vec![], list);
    while !entry.is_null() {
        entries.push(entry);
        entry = unsafe { (*entry).ai_next };
    }
    entries
}

fn is_mapped(place: *mut addrinfo) -> bool {
    memory::RELEASED
        .with_borrow(|released| !released.iter().any(|range| range.contains(&(place as usize))))
}

#[test]
fn a_list_has_every_address_in_its_order() {
    let list = build(500, 2);
    let entries = entries(list);
    assert_eq!(entries.len(), 1000);
    for (at, entry) in entries.iter().enumerate() {
        let info = unsafe { &**entry };
        let address = unsafe { &*info.ai_addr.cast::<libc::sockaddr_in>() };
        assert_eq!(info.ai_addrlen, 16);
        assert_eq!(u32::from_be(address.sin_addr.s_addr), 0x0a00_0000 + at as u32 / 2);
        assert!(unsafe { page_of(*entry) }.is_some());
    }
    unsafe { free(list, |_| panic!("it is ours")) };
    assert!(entries.iter().all(|entry| !is_mapped(*entry)));
}

#[test]
fn a_list_is_given_back_in_parts() {
    let list = build(100, 1);
    let middle = entries(list)[60];
    unsafe {
        (*entries(list)[59]).ai_next = core::ptr::null_mut();
        free(middle, |_| panic!("it is ours"));
        assert!(is_mapped(list), "the first part lives");
        free(list, |_| panic!("it is ours"));
    }
    assert!(!is_mapped(list) && !is_mapped(middle));
}

#[test]
fn lists_of_both_origins_may_be_joined() {
    let mut other: Box<addrinfo> = Box::new(unsafe { std::mem::zeroed() });
    let mut last: Box<addrinfo> = Box::new(unsafe { std::mem::zeroed() });
    let list = build(1, 1);
    unsafe { (*list).ai_next = &raw mut *last };
    other.ai_next = list;
    let freed = RefCell::new(vec![]);
    unsafe { free(&raw mut *other, |entry| freed.borrow_mut().push(entry)) };
    assert_eq!(*freed.borrow(), [&raw mut *other, &raw mut *last]);
    assert!(other.ai_next.is_null(), "the C library would give ours back as well");
    assert!(!is_mapped(list));
}

#[test]
fn a_list_of_the_c_library_goes_back_as_a_whole() {
    let mut second: addrinfo = unsafe { std::mem::zeroed() };
    let mut first: addrinfo = unsafe { std::mem::zeroed() };
    first.ai_next = &raw mut second;
    let freed = RefCell::new(vec![]);
    unsafe { free(&raw mut first, |entry| freed.borrow_mut().push(entry)) };
    assert_eq!(*freed.borrow(), [&raw mut first]);
    assert_eq!(first.ai_next, &raw mut second);
    unsafe { free(core::ptr::null_mut(), |entry| assert!(entry.is_null())) };
}

#[test]
fn no_address_makes_no_list() {
    assert!(build(0, 3).is_null());
}

fn selected(family: c_int, flags: c_int, addresses: &[&str]) -> Vec<String> {
    let wanted = Wanted::of(family, flags).expect("a family");
    let addresses = addresses.iter().map(|ip| ip.parse().expect("an address"));
    wanted.select(addresses).map(|ip| ip.to_string()).collect()
}

#[test]
fn hints_say_which_addresses_are_wanted() {
    let both = ["10.0.0.1", "2001:db8::1"];
    assert_eq!(selected(libc::AF_UNSPEC, libc::AI_V4MAPPED, &both), both);
    assert_eq!(selected(libc::AF_INET, 0, &both), both[..1]);
    assert_eq!(selected(libc::AF_INET6, 0, &both), both[1..]);
    assert_eq!(selected(libc::AF_INET6, libc::AI_ALL, &both), both[1..]);
    assert_eq!(selected(libc::AF_INET6, libc::AI_V4MAPPED, &both), both[1..]);
    assert_eq!(selected(libc::AF_INET6, libc::AI_V4MAPPED, &both[..1]), ["::ffff:10.0.0.1"]);
    let all = libc::AI_V4MAPPED | libc::AI_ALL;
    assert_eq!(selected(libc::AF_INET6, all, &both), ["::ffff:10.0.0.1", "2001:db8::1"]);
    assert_eq!(Wanted::of(libc::AF_UNIX, 0), None);
}
