// Package creditpb is the generated code of the credit protocol, credit.proto, which is its
// documentation. Package streamcredit speaks the protocol; programs need this one for
// the field Control of their messages, and to register CreditStream.
package creditpb
