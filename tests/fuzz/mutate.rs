//! Inputs that are nearly those of the corpus: cut, spliced, repeated, turned over, and with words in them that mean something
//! to somebody.

use rand::RngExt;
use rand::rngs::StdRng;

/// No input is longer.
const LONGEST: usize = 4096;

const WORDS: &[&[u8]] = &[
    b"..",
    b".",
    b"/",
    b"//",
    b"\0",
    b"\n",
    b"=",
    b"%",
    b"%2F",
    b"%00",
    b"\xff",
    b"\xc3",
    b"_$folder$",
    b"\xe2\x80\xae",
    b"e\xcc\x81",
    b"\xc3\xa9",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967295",
    b"0100644",
    b"33188",
    b"120777",
    b"1e999",
    b"NaN",
    b"\"",
    b"'",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"\\",
    b"*",
    b"**",
    b"{a,b}",
    b" ",
    b"mode",
    b"mtime",
    b"xattr",
    b"mediafs-symlink",
    b"null",
    b"true",
    b"\xef\xbb\xbf",
    b"s3://",
    b"\x1b[31m",
];

pub fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = pick(corpus, random).clone();
    for _ in 0..random.random_range(1..6) {
        change(&mut input, corpus, random);
        input.truncate(LONGEST);
    }
    input
}

fn pick<'a, T>(all: &'a [T], random: &mut StdRng) -> &'a T {
    &all[random.random_range(0..all.len())]
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = random.random_range(at..=input.len());
    match random.random_range(0..9) {
        0 => drop(input.drain(at..end)),
        1 => drop(input.splice(at..at, pick(WORDS, random).iter().copied())),
        2 => drop(input.splice(at..end, pick(WORDS, random).iter().copied())),
        3 => drop(input.splice(at..at, input[at..end].to_vec())),
        4 => {
            let other = pick(corpus, random);
            let from = random.random_range(0..=other.len());
            input.splice(at..at, other[from..].iter().copied());
        }
        5 => input[at..end].reverse(),
        6 => {
            let times = random.random_range(1..300);
            let byte = random.random();
            input.splice(at..at, std::iter::repeat_n(byte, times));
        }
        _ if at < input.len() => {
            input[at] = match random.random_range(0..3) {
                0 => random.random(),
                1 => input[at] ^ (1 << random.random_range(0..8)),
                _ => input[at].wrapping_add(1),
            };
        }
        _ => input.push(random.random()),
    }
}
