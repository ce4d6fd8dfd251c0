// One processing element (PE): seven registers, a multiplier and an adder.
//
// At every clock edge, from the values before the edge:
//
//   1. activation, shift and swap arrive from the left, a weight and a psum from above;
//   2. used = next_weight if swap arrives, else weight; then weight <- used;
//   3. if shift arrives: weight_pass <- next_weight, next_weight <- arriving weight;
//   4. psum <- arriving psum + used * arriving activation, modulo 2^32;
//   5. activation, shift and swap take what arrived, and so travel on to the right.
//
// weight and next_weight are double buffering: the next tile is shifted down through next_weight
// while weight is in use. weight_pass delays the shift chain by one cycle per row, so that weights
// going down keep step with the shift bits, which enter each row one cycle after the row above.

`default_nettype none

module pe #(
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1
) (
    input  wire         clk,
    input  wire         reset,
    // From the left: the PE in the column before, or the west port.
    input  wire  [7:0]  arriving_activation,
    input  wire         arriving_shift,
    input  wire         arriving_swap,
    // From above: the PE in the row before, or the north port.
    input  wire  [7:0]  arriving_weight,
    input  wire  [31:0] arriving_psum,
    // To the right.
    output logic [7:0]  activation,
    output logic        shift,
    output logic        swap,
    // Down.
    output logic [7:0]  weight_pass,
    output logic [31:0] psum
);
    logic [7:0] weight;
    logic [7:0] next_weight;

    // A swap acts on the very edge on which it arrives: the first row of x already meets the new
    // tile. Were it to act one edge later, each fold would lose a cycle.
    wire [7:0] used = arriving_swap ? next_weight : weight;

    // 32 bits hold every product of 8-bit operands exactly, and in a sum modulo 2^32 an extended
    // operand is all that signedness means.
    wire [31:0] factor_a = {{24{ACTIVATION_SIGNED && arriving_activation[7]}}, arriving_activation};
    wire [31:0] factor_w = {{24{WEIGHT_SIGNED && used[7]}}, used};

    always_ff @(posedge clk) begin
        if (reset) begin
            weight      <= 8'd0;
            next_weight <= 8'd0;
            weight_pass <= 8'd0;
            activation  <= 8'd0;
            psum        <= 32'd0;
            shift       <= 1'b0;
            swap        <= 1'b0;
        end else begin
            weight <= used;
            // Shift and swap on one edge: weight and weight_pass both take the old next_weight.
            if (arriving_shift) begin
                weight_pass <= next_weight;
                next_weight <= arriving_weight;
            end
            psum       <= arriving_psum + factor_a * factor_w;
            activation <= arriving_activation;
            shift      <= arriving_shift;
            swap       <= arriving_swap;
        end
    end
endmodule

`default_nettype wire
