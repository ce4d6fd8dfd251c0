// Drives output_unit from files, as bench.sv drives matrix_unit; the bound monitor writes +dump.
//
// A frame, most significant byte first: flags {by_hand, a fold arrives, reset}, activations (last
// row first), swap bits and drain bits (a byte each), weights (last column first), out values.

`default_nettype none

module output_bench #(
    parameter int ROWS              = 4,
    parameter int COLS              = 4,
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1,
    parameter bit DOUBLE_BUFFERED   = 1'b1
);
    localparam int FRAME_BYTES = 1 + 3 * ROWS + 5 * COLS;
    localparam int WORDS = 65536;

    logic clk = 1'b0;
    initial forever #1 clk = !clk;

    logic [8*FRAME_BYTES-1:0] frame;
    wire  [7:0] flags;
    wire  [8*ROWS-1:0] hand_activation, swap_bytes, drain_bytes;
    wire  [8*COLS-1:0] hand_weight;
    wire  [32*COLS-1:0] north_out;
    wire  [ROWS-1:0] hand_swap, hand_drain;
    assign {flags, hand_activation, swap_bytes, drain_bytes, hand_weight, north_out} = frame;

    for (genvar r = 0; r < ROWS; r++) begin : control
        assign hand_swap[r]  = swap_bytes[8*r];
        assign hand_drain[r] = drain_bytes[8*r];
    end

    logic [8*ROWS-1:0] x_memory[WORDS];
    logic [8*COLS-1:0] w_memory[WORDS];
    logic [95:0]       folds[WORDS];

    wire         reset   = flags[0];
    wire         arrives = flags[1];
    wire         by_hand = flags[2];
    wire  [15:0] x_address, w_address;
    wire         fold_ready;
    wire  [31:0] cycle, cycles;
    wire  [32*COLS-1:0] read_sums;
    wire  [32*COLS-1:0] south_out;

    // Folds that have arrived wait in a queue; reset does not forget how far it was read, so that
    // the next scenario's folds follow.
    logic [15:0] taken = 16'd0, arrived = 16'd0;
    wire  [15:0] in_queue = arrived + 16'(arrives);
    wire         fold_valid = taken != in_queue;
    wire  [15:0] fold_m, fold_k, fold_n, fold_x_address, fold_w_address;
    wire         fold_half;
    wire  [14:0] padding;
    assign {fold_m, fold_k, fold_n, fold_x_address, fold_w_address, padding[14:1], fold_half, padding[0]} =
        folds[taken];

    always_ff @(posedge clk) begin
        arrived <= in_queue;
        if (fold_valid && fold_ready && !reset) taken <= taken + 16'd1;
    end

    output_unit #(
        .ROWS             (ROWS),
        .COLS             (COLS),
        .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
        .WEIGHT_SIGNED    (WEIGHT_SIGNED),
        .DOUBLE_BUFFERED  (DOUBLE_BUFFERED)
    ) unit (
        .x_data(x_memory[x_address]),
        .w_data(w_memory[w_address]),
        .read_row (16'd0),
        .read_half(1'b0),
        .read_sums,
        .*
    );

    bind output_unit output_monitor #(
        .ROWS(ROWS),
        .COLS(COLS)
    ) monitor (
        .clk
    );

    integer frames, file, count;
    string  path;

    // verilator lint_off BLKSEQ
    task automatic fetch;
        if ($fread(frame, frames) != FRAME_BYTES) $finish;
    endtask

    initial begin
        count = $value$plusargs("x=%s", path);
        file  = $fopen(path, "rb");
        count = $fread(x_memory, file);
        $fclose(file);
        count = $value$plusargs("w=%s", path);
        file  = $fopen(path, "rb");
        count = $fread(w_memory, file);
        $fclose(file);
        count = $value$plusargs("folds=%s", path);
        file  = $fopen(path, "rb");
        count = $fread(folds, file);
        $fclose(file);
        count  = $value$plusargs("frames=%s", path);
        frames = $fopen(path, "rb");
        if (frames == 0) $fatal(1, "cannot read %s", path);
        fetch();
    end

    // Inputs change on the falling edge, far from the edge that takes them.
    always @(negedge clk) fetch();

    wire unused = &{1'b0, count, padding, flags[7:3], swap_bytes, drain_bytes, south_out, cycle, cycles, read_sums};
endmodule

`default_nettype wire
