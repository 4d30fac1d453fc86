// Package creditpb is the generated code of the credit protocol. The file credit.proto documents
// the protocol, and package streamcredit speaks it. Programs need this package for the field
// Control of their messages, and to register CreditStream.
package creditpb
