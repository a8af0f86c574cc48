use gradus::Params;

#[derive(Params)]
union Bits {
    single: f32,
    bits: u32,
}

fn main() {}
